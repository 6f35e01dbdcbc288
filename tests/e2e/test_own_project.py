"""A project of one's own, from `init` to a second version of a view, with the commands that `init` names.

Everything is run by the installed wheel, away from this tree.
"""

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.request import urlopen

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.installed import install
from tests.e2e.platform import Platform, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.services, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """What `init` makes."""
    python = install(tmp_path_factory.mktemp("python"))
    directory = tmp_path_factory.mktemp("own") / "my_shop"
    Platform(directory.parent, directory=directory.parent, python=python).said("init", str(directory))
    return Platform(directory / ".featurestore", directory=directory, python=python)


@pytest.fixture(scope="module")
def project(made: Platform) -> Iterator[Platform]:
    with made.running() as started:
        yield started


def restarts(project: Platform) -> dict[str, tuple[int, int]]:
    """What runs, and how often it was started again; without the feature server, which `apply` starts again."""
    processes = json.loads(project.said("status", "--json"))["processes"]
    return {one["name"]: (one["pid"], one["restarts"]) for one in processes if one["name"] != "server"}


def served(project: Platform) -> str:
    """The features that the feature server knows."""
    [server] = [one for one in json.loads(project.said("status", "--json"))["processes"] if one["name"] == "server"]
    with urlopen(f"http://{server['address']}/v1/features", timeout=10) as reply:
        return reply.read().decode()


def adds_up(project: Platform) -> bool:
    """Whether what is due in views has come there."""
    counts = json.loads(project.said("status", "--json"))["counts"]
    return counts["due"] == sum(counts[name] for name in ("logged", "filtered", "quarantined", "pending")) > 0


def ratio(project: Platform) -> str:
    """Of user 1, online."""
    return project.command("get", "user", "1", "debt_to_income").stdout


def test_its_tests_are_green(made: Platform) -> None:
    tests = [str(made.python), "-m", "pytest", "-q"]
    done = subprocess.run(tests, cwd=made.directory, env=made.env, capture_output=True, text=True, check=False)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_it_knows_nothing_of_this_tree(made: Platform) -> None:
    said = subprocess.run(
        [str(made.python), "-c", "import featurestore_cli; print(featurestore_cli.__file__)"],
        cwd=made.directory,
        env=made.env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(said.stdout).is_relative_to(made.python.parents[1])


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
    assert adds_up(project)  # with the history of the new version
    assert restarts(project) == before


def test_going_back_is_one_command(project: Platform) -> None:
    project.said("views", "activate", "credit", "1")
    wait_until(lambda: "0.125" in ratio(project), 10, "version 1 is what its name gives", project)


ORDERS = """

ORDERS = fs.AssetSource("orders", path="orders", timestamp="at", schema={"user_id": int, "price": float})
SPENDING = fs.FeatureView("spending", USER, ORDERS, [fs.Feature("last_price", float, "price", online=True)])
"""


def test_a_version_is_dropped_by_apply_alone_and_the_rows_of_a_folder_are_a_source(project: Platform) -> None:
    project.said("views", "activate", "credit", "2")
    before = restarts(project)
    features = project.directory / "my_shop" / "user.py"
    text = features.read_text()
    old = text[text.index("CREDIT =") : text.index("PERCENT =")]
    features.write_text(text.replace(old, "").replace("PERCENT =", "CREDIT =") + ORDERS)
    assert "v1 is not declared any more" in project.said("plan")
    assert "not declared" in project.said("views", "list")
    assert "last_price" not in served(project)
    assert "credit v1 was dropped" in project.said("apply", within_s=300)
    assert "last_price" in served(project)
    assert "not declared" not in project.said("views", "list")
    assert "12.5" in ratio(project)
    (project.directory / "orders").mkdir()
    rows = pa.table({"user_id": [1], "at": pa.array([datetime.now(UTC)], pa.timestamp("us", "UTC")), "price": [9.75]})
    pq.write_table(rows, project.directory / "orders.tmp")
    (project.directory / "orders.tmp").rename(project.directory / "orders" / "1.parquet")
    wait_until(lambda: "9.75" in project.command("get", "user", "1", "last_price").stdout, 90, "it is online", project)
    assert restarts(project) == before
