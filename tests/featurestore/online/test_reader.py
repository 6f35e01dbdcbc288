"""Plans of reads."""

import pytest

from featurestore.online import reader
from featurestore.online.keys import Keys
from featurestore.online.reader import Plans, plan_read
from tests.featurestore.online.examples import ACTIVITY, FEATURES, view


def test_the_same_features_are_planned_once() -> None:
    plans = Plans(Keys())
    assert plans.plan("user", FEATURES) is plans.plan("user", list(FEATURES))
    assert plans.plan("user", FEATURES) is not plans.plan("merchant", FEATURES)
    assert plans.plan("user", FEATURES) is not plans.plan("user", FEATURES[:2])


def test_features_made_anew_are_never_taken_for_others() -> None:
    # Objects that are gone leave their identities to others; a plan that is kept keeps its features.
    plans = Plans(Keys())
    for number in range(2_000):
        name = ("score", "clicks", "city")[number % 3]
        assert plans.plan("user", [view()[name]]).fields == (b"!activity@1", f"{name}@1".encode())


def test_plans_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_PLANS", 3)
    plans = Plans(Keys())
    kept = [[view()["score"]] for _ in range(10)]
    for features in kept:
        plans.plan("user", features)
    assert len(plans._made) <= 3


def test_features_of_a_view_stand_together_behind_its_order() -> None:
    second = view(version=2)
    plan = plan_read(Keys(), "user", [ACTIVITY["score"], second["clicks"], ACTIVITY["city"]])
    assert plan.fields == (b"!activity@1", b"score@1", b"city@1", b"!activity@2", b"clicks@2")
    [command] = plan.commands("a")
    assert command.startswith(b"*7\r\n$5\r\nHMGET\r\n$11\r\nfs:{user:a}\r\n$11\r\n!activity@1\r\n")
