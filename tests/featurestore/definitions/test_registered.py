"""A view that was changed and kept its version is refused without a connection: at load, from the service's note."""

from dataclasses import replace
from pathlib import Path

import pytest

import featurestore as fs
from featurestore.definitions.registered import check_registered, read_registered, write_registered

USER = fs.Entity("user", key="user_id")
PROFILES = fs.UploadSource("profiles", timestamp="as_of", schema={"user_id": int, "income": float})
VIEW = fs.FeatureView("credit", USER, PROFILES, [fs.Feature("income_now", float, "income")])
CHANGED = replace(VIEW, where="income > 0")


def test_a_change_needs_a_version(tmp_path: Path) -> None:
    file = tmp_path / "registered.json"
    check_registered(fs.Project((CHANGED,)), read_registered(file))  # no service has run yet
    write_registered(file, {VIEW.target: VIEW.digest})
    check_registered(fs.Project((VIEW,)), read_registered(file))
    check_registered(fs.Project((replace(VIEW, owner="x"), replace(CHANGED, version=2))), read_registered(file))
    with pytest.raises(fs.DefinitionError, match=r"view 'credit': .* give it version=2, or take the change back"):
        check_registered(fs.Project((CHANGED,)), read_registered(file))


def test_a_dropped_version_does_not_come_back(tmp_path: Path) -> None:
    write_registered(tmp_path / "registered.json", {VIEW.target: "", "credit@v2": "abc", "other@v9": "x"})
    with pytest.raises(fs.DefinitionError, match="version 1 was dropped; give it version=3"):
        check_registered(fs.Project((VIEW,)), read_registered(tmp_path / "registered.json"))


def test_the_message_names_the_line() -> None:
    view = fs.FeatureView("v", USER, PROFILES, [fs.Feature("income_now", float, "income")])
    file, _, line = view.declared_at.rpartition(":")
    assert Path(file).name == Path(__file__).name
    assert 'fs.FeatureView("v"' in Path(__file__).read_text().splitlines()[int(line) - 1]
