"""What a read of features, of derived ones too, comes to."""

from datetime import timedelta

import pytest

import featurestore as fs
from featurestore.errors import DefinitionError, TerminalError
from featurestore.online import reads
from featurestore.online.memory import MemoryOnlineStore
from featurestore.online.reads import ReadPlanner
from featurestore.online.values import Status
from tests.featurestore.online.examples import ACTIVITY, EVENTS, NOW, USER, order, row, table, view

SECOND = view(version=2)
SUMS = fs.DerivedView(
    "sums",
    inputs=[ACTIVITY["score"], ACTIVITY["clicks"]],
    request={"amount": float},
    features=[fs.Feature("total", float, "score + clicks + amount")],
)
TWICE = fs.DerivedView("twice", inputs=[SUMS], features=[fs.Feature("double", float, "2 * total")])
OTHER = fs.DerivedView(
    "other", inputs=[SECOND["score"]], request={"amount": int | None}, features=[fs.Feature("same", float, "score")]
)
PRIVATE = fs.FeatureView("private", USER, EVENTS, [fs.Feature("secret", float, "score")])
HIDDEN = fs.DerivedView("hidden", inputs=[PRIVATE["secret"]], features=[fs.Feature("shown", float, "secret")])
STRANGER = fs.FeatureView("stranger", USER, EVENTS, [fs.Feature("score", float, online=True)])
PROJECT = fs.Project((ACTIVITY, SECOND, SUMS, TWICE, OTHER, PRIVATE, HIDDEN))


@pytest.fixture
def planner() -> ReadPlanner:
    return ReadPlanner(PROJECT)


@pytest.fixture
def store() -> MemoryOnlineStore:
    one = MemoryOnlineStore()
    one.push(ACTIVITY, table([row("1", order(-9), score=1.5, clicks=2), row("2", order(), score=1.0)]), [])
    return one


def test_derived_features_read_their_inputs_once(planner: ReadPlanner, store: MemoryOnlineStore) -> None:
    plan = planner.plan([TWICE, ACTIVITY["score"]])
    assert plan.names == ("double", "score")
    assert plan.dtypes == (float, float)
    assert [len(features) for _, features in plan.stored] == [2]
    assert [one.name for one in plan.request] == ["amount"]
    assert plan.key_columns == ("user_id",)
    first, second, unknown = plan.read(store, {"user_id": [1, 2, 3], "amount": [0.5, 1, None]}, NOW)
    assert first["double"].value == 2 * (1.5 + 2 + 0.5)
    assert first["double"].event_timestamp == NOW - timedelta(seconds=9)
    assert (second["double"].status, second["score"].value) == (Status.NULL, 1.0)
    assert (unknown["double"].status, unknown["double"].event_timestamp) == (Status.NULL, None)


def test_the_same_features_are_planned_once_and_plans_are_bounded(
    planner: ReadPlanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = [ACTIVITY, TWICE]
    assert planner.plan(features) is planner.plan(list(features))
    monkeypatch.setattr(reads, "MAX_PLANS", 2)
    for _ in range(10):
        planner.plan([ACTIVITY["score"]])
    assert len(planner._made) <= 2


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([PRIVATE], "no feature that is read online"),
        ([HIDDEN], "feature 'secret' of view 'private' is not online; set online=True"),
        ([ACTIVITY["score"], SECOND["score"]], "two versions of feature 'score'"),
        ([SUMS, OTHER], "two versions of feature 'score'"),
        (["score"], r"'score' is none of VIEW\['feature'\], whole views, .*; store.find\('name'\) finds by name"),
        ("score", "'score' is not a list"),
        ([USER], r"Entity\(…\) is none of VIEW"),
        (
            [fs.FeatureView("stranger", USER, EVENTS, [fs.Feature("score", float, online=True)])["score"]],
            "not declared",
        ),
    ],
)
def test_what_cannot_be_read_is_named(planner: ReadPlanner, features: list[object], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        planner.plan(features)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"amount": [1.0]}, "'user_id' is not given"),
        ({"user_id": [1]}, "needs request value 'amount'"),
        ({"user_id": [1], "amount": ["much"]}, "'amount' is not a column of float"),
        ({"user_id": [1], "amount": [1.0, 2.0]}, "different lengths"),
        ({"user_id": [1.0], "amount": [1.0]}, "cannot identify"),
        ({"user_id": 1, "amount": [1.0]}, "'user_id' is 1; give a list, one value per row"),
        ({"user_id": "1", "amount": [1.0]}, "'user_id' is '1'; give a list"),
    ],
)
def test_what_is_given_must_fit(
    planner: ReadPlanner, store: MemoryOnlineStore, given: dict[str, list[object]], message: str
) -> None:
    with pytest.raises(TerminalError, match=message):
        planner.plan([SUMS]).read(store, given, NOW)  # type: ignore[arg-type]
