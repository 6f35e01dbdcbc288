"""A code location of a test's own."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from tests.featurestore_dagster.launcher.running import TREE, Location


@pytest.fixture(scope="module")
def location(tmp_path_factory: pytest.TempPathFactory) -> Generator[Location]:
    """One for all tests of a file: its code is loaded once."""
    with made(tmp_path_factory.mktemp("location")) as found:
        yield found


@pytest.fixture
def own_location(tmp_path: Path) -> Generator[Location]:
    """For a test that spoils it."""
    with made(tmp_path) as found:
        yield found


@contextmanager
def made(directory: Path) -> Generator[Location]:
    home, code = directory / "home", directory / "code"
    home.mkdir()
    code.mkdir()
    ours = (TREE / "dagster.yaml").read_text()
    (home / "dagster.yaml").write_text(f"{ours}\ncode_servers: {{wait_for_local_processes_on_shutdown: true}}\n")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield Location(code, instance)
