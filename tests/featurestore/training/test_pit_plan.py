"""Plans: what a request for features comes to, and what is refused."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

import featurestore as fs
from featurestore.training.pit_plan import KnownAt, PitPlan, plan_reads

USER = fs.Entity("user", key="user_id")
EVENTS = fs.KafkaSource("events", timestamp="at", schema={"user_id": int, "a": float, "b": int, "c": float})
ONE = fs.FeatureView(
    "one",
    USER,
    EVENTS,
    [fs.Feature("a", float, max_age="2h"), fs.Feature("b", int), fs.Aggregation("c", "sum", "b", windows=("1h", "7d"))],
)
TWO = fs.FeatureView("one", USER, EVENTS, [fs.Feature("a", float, "a * 2")], version=2)
DERIVED = fs.DerivedView(
    "derived", [ONE["a"], ONE["c_1h"]], [fs.Feature("per_hour", float, "a / c_1h + x")], request={"x": float}
)
TWICE = fs.DerivedView("twice", [DERIVED, ONE["b"]], [fs.Feature("more", float, "per_hour * 2 + b")])
PROJECT = fs.Project((ONE, TWO, DERIVED, TWICE))


def names(plan: PitPlan) -> list[str]:
    return [name for _, name in plan.features]


def test_a_view_stands_for_its_features_in_order() -> None:
    plan = plan_reads(PROJECT, [ONE["c_7d"], ONE], KnownAt())
    assert names(plan) == ["c_7d", "a", "b", "c_1h"]
    [view] = plan.views
    assert [one.max_age_us for one in view.rows] == [2 * 3600 * 10**6, None]
    assert [(one.name, one.column, one.window.length_us) for one in view.windows] == [
        ("c_1h", "c", 3600 * 10**6),
        ("c_7d", "c", 7 * 86400 * 10**6),
    ]
    assert view.columns == ("a", "b", "c")


def test_only_what_is_needed_is_read() -> None:
    [view] = plan_reads(PROJECT, [ONE["c_1h"]], KnownAt()).views
    assert (view.rows, view.columns) == ((), ("c",))


def test_derived_features_bring_their_inputs_but_do_not_show_them() -> None:
    plan = plan_reads(PROJECT, [TWICE], KnownAt())
    assert names(plan) == ["more"]
    assert [what.target for what in plan.derivations] == ["derived@v1", "twice@v1"]
    assert plan.views[0].columns == ("a", "b", "c")
    assert plan.request == {"x": "float"}
    assert "derived@v1" in str(plan)


def test_two_versions_of_a_name_do_not_fit_into_one_set() -> None:
    with pytest.raises(fs.DefinitionError, match="'a' is asked for twice, from one@v1 and one@v2"):
        plan_reads(PROJECT, [ONE["a"], TWO["a"]], KnownAt())


def test_an_older_version_is_read_by_its_reference() -> None:
    assert plan_reads(PROJECT, [ONE["a"]], KnownAt()).views[0].target == "one@v1"
    assert plan_reads(PROJECT, [TWO["a"]], KnownAt()).views[0].target == "one@v2"


def test_what_is_not_declared_is_refused() -> None:
    other = fs.FeatureView("other", USER, EVENTS, [fs.Feature("a", float)])
    with pytest.raises(fs.DefinitionError, match="view 'other' version 1 is not declared"):
        plan_reads(PROJECT, [other], KnownAt())
    with pytest.raises(fs.DefinitionError, match="no features are asked for"):
        plan_reads(PROJECT, [], KnownAt())
    for wrong in (["a"], "a", ONE, ONE["a"], [fs.Model("m", [ONE["a"]])]):
        with pytest.raises(fs.DefinitionError, match=r"the features asked for: .* VIEW\['feature'\], whole views"):
            plan_reads(PROJECT, wrong, KnownAt())  # type: ignore[arg-type]


NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("known_at", "delay", "text"),
    [
        (None, 0, "all"), (NOON, 0, "2026-05-04T12:00:00+00:00"), ("row", 0, "row"), ("row", 90, "row + 0:01:30"),
    ],
)  # fmt: skip
def test_known_at_reads_as_it_was_asked(known_at: Any, delay: int, text: str) -> None:
    assert str(KnownAt.of(known_at, timedelta(seconds=delay))) == text


@pytest.mark.parametrize(
    ("known_at", "delay", "message"),
    [
        (None, 1, 'a delay needs known_at="row"'),
        (NOON, 1, 'a delay needs known_at="row"'),
        ("row", -1, "before they were landed"),
        (NOON.replace(tzinfo=None), 0, "has no time zone"),
        ("rows", 0, "known_at 'rows' is not None, \"row\" or an aware datetime"),
        ("2026-05-04T12:00:00Z", 0, "is not None"),
    ],
)
def test_a_known_at_without_meaning_is_refused(known_at: Any, delay: int, message: str) -> None:
    with pytest.raises(fs.TerminalError, match=message):
        KnownAt.of(known_at, timedelta(seconds=delay))


def test_a_plan_survives_json() -> None:
    plan = plan_reads(PROJECT, [TWICE, ONE["a"]], KnownAt.of("row", timedelta(seconds=1)))
    assert msgspec.json.decode(msgspec.json.encode(plan), type=PitPlan) == plan
