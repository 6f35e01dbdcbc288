"""What declared views are to the log that is there, line by line of the plan."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

import featurestore as fs
from featurestore.definitions.changes import Change, Kind, Known, Missing, find_changes

USER = fs.Entity("user", key="user_id")
PROFILES = fs.UploadSource("profiles", timestamp="as_of", schema={"user_id": int, "income": float, "debt": float})
RATIO = fs.Feature("ratio", float, "debt / income", online=True)
INCOME = fs.Feature("income_now", float, "income")
V1 = fs.FeatureView("credit", USER, PROFILES, [RATIO, INCOME])
V2 = replace(V1, features=[replace(RATIO, sql="debt * 100 / income"), INCOME], version=2)


def known(view: fs.FeatureView, **others: bool) -> Known:
    """As the log has it."""
    names = frozenset(one.name for one in view.row_features)
    online = frozenset(one.name for one in view.online_features)
    return Known(view.name, view.version, view.digest, names, online, **others)


def changes(
    declared: Sequence[fs.FeatureView],
    logged: Sequence[Known],
    missing: Mapping[str, Missing] | None = None,
    production: Mapping[str, Mapping[str, int]] | None = None,
) -> list[Change]:
    return find_changes(fs.Project(tuple(declared)), logged, missing or {}, production or {})


def test_what_is_there_is_no_change() -> None:
    assert changes([V1], [known(V1)]) == []
    assert changes([replace(V1, owner="team:risk", description="x")], [known(V1)]) == []


def test_a_new_view_says_what_there_is_to_process() -> None:
    assert changes([V1], [], {"credit@v1": Missing(3, 40)}) == [Change(Kind.NEW, "credit", 1, "new", Missing(3, 40))]


def test_a_new_version_names_its_features_and_the_models_of_the_old_one() -> None:
    [change] = changes([V1, V2], [known(V1)], production={"risk": {"credit": 1}, "other": {"credit": 2}})
    assert (change.kind, change.text, change.models) == (Kind.CHANGED, "v1 → v2: ratio", ("risk",))


def test_of_a_version_that_is_not_in_the_code_any_more_the_names_are_known() -> None:
    renamed = replace(V1, features=[RATIO, fs.Feature("income_then", float, "income")], version=2)
    version, gone = changes([renamed], [known(V1)])
    assert version.text == "v1 → v2: +income_then, -income_now"
    assert (gone.kind, gone.text) == (Kind.GONE, "v1 is not declared any more")


def test_a_change_without_a_version_is_refused_with_its_place() -> None:
    changed = replace(V2, version=1)
    [change] = changes([changed], [known(V1)])
    assert (change.kind, change.text) == (Kind.REFUSED, "changed, version is still 1")
    assert "give it version=2, or take the change back (" in change.error
    assert "test_changes.py:" in change.error


def test_the_number_of_a_dropped_version_is_refused() -> None:
    [change] = changes([V1], [known(V1, dropped=True), known(V2, dropped=True)])
    assert "version 1 was dropped; give it version=3" in change.error


def test_a_version_that_a_production_model_reads_cannot_go() -> None:
    [change] = changes([V2], [known(V1), known(V2)], production={"risk": {"credit": 1}})
    assert (change.kind, change.models) == (Kind.REFUSED, ("risk",))
    assert change.error == "credit: risk (production) reads version 1; keep it in the code"


@pytest.mark.parametrize(
    ("online", "text"), [(True, "income_now goes online"), (False, "ratio is not online any more")]
)
def test_what_goes_online_is_said(online: bool, text: str) -> None:
    features = [RATIO, replace(INCOME, online=True)] if online else [replace(RATIO, online=False), INCOME]
    [change] = changes([replace(V1, features=features)], [known(V1)])
    assert (change.kind, change.text) == (Kind.CHANGED, f"v1: {text}")


def test_history_that_was_never_brought_is_said() -> None:
    [change] = changes([V1], [known(V1)], {"credit@v1": Missing(2, 5)})
    assert (change.kind, change.text, change.missing) == (Kind.CHANGED, "v1: history is missing", Missing(2, 5))
