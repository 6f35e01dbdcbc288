"""A project of one's own, from `init` to a second version of a view, with the commands that `init` names."""

import json
from collections.abc import Iterator

import pytest

from tests.e2e.platform import Platform, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.services, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    directory = tmp_path_factory.mktemp("own") / "my_shop"
    made = Platform(directory / ".featurestore", directory=directory)
    Platform(directory.parent).said("init", str(directory))
    try:
        made.up()
        yield made
    finally:
        made.down()


def restarts(project: Platform) -> dict[str, tuple[int, int]]:
    """What runs, and how often it was started again."""
    processes = json.loads(project.said("status", "--json"))["processes"]
    return {one["name"]: (one["pid"], one["restarts"]) for one in processes}


def ratio(project: Platform) -> str:
    """Of user 1, online."""
    return project.command("get", "user", "1", "debt_to_income").stdout


def test_a_row_that_is_uploaded_is_online(project: Platform) -> None:
    project.said("upload", str(project.directory / "profiles.csv"), "--source", "profiles")
    wait_until(lambda: "0.125" in ratio(project), 60, "the newest row of user 1 is online", project)
    assert "nothing to do" in project.said("plan")


def test_a_changed_feature_is_refused_until_it_has_a_version(project: Platform) -> None:
    features = project.directory / "my_shop" / "user.py"
    features.write_text(features.read_text().replace('"debt /', '"100 * debt /'))
    for command in ("plan", "apply"):
        refused = project.command(command)
        assert refused.returncode == 1
        assert "give it version=2, or take the change back (my_shop/user.py:9)" in refused.stderr


def test_a_new_version_gets_its_history_without_a_restart(project: Platform) -> None:
    before = restarts(project)
    features = project.directory / "my_shop" / "user.py"
    text = features.read_text()
    old = text[text.index("CREDIT =") :]
    features.write_text(
        text.replace(old, old.replace('"100 * debt', '"debt') + old.replace("CREDIT =", "PERCENT =", 1))
        .replace("    expect=", "    version=2,\n    expect=")
        .replace("    version=2,\n    expect=", "    expect=", 1)
    )
    assert "v1 → v2: debt_to_income" in project.said("plan")
    said = project.said("apply", within_s=300)
    assert "credit v2 is active" in said
    assert "12.5" in ratio(project)
    assert "nothing to do" in project.said("plan")
    assert restarts(project) == before


def test_going_back_is_one_command(project: Platform) -> None:
    project.said("views", "activate", "credit", "1")
    wait_until(lambda: "0.125" in ratio(project), 10, "version 1 is what its name gives", project)
