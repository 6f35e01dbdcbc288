"""Dagster's state at the demo's load stays under 500 MB for ever: what a run leaves, times the runs that are kept."""

from pathlib import Path

import dagster as dg

from featurestore_dagster.maintenance import KEEP_DAYS, KEEP_RUNS, PURGED_AT_ONCE
from featurestore_dagster.resources import Resources
from tests.featurestore_dagster.platform import Platform

TREE = Path(__file__).parents[2]
LIMIT_BYTES = 500 * 2**20
SOURCES = 2  # of the demo
INTERVAL_S = 10  # a run per source at most this often
RUNS = 8


def test_what_runs_leave_is_bounded(tmp_path: Path, resources: Resources) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text((TREE / "dagster.yaml").read_text())
    with dg.DagsterInstance.from_config(str(home)) as instance:
        platform = Platform(resources, instance)
        platform.land("first")
        platform.settle()
        before = size(home)
        for number in range(RUNS):
            platform.land(str(number))
            platform.settle()
        assert instance.get_runs_count() == RUNS + 1
        bytes_per_run = (size(home) - before) / RUNS
    between_purges = SOURCES * 3600 // INTERVAL_S  # the purge runs hourly
    assert between_purges < PURGED_AT_ONCE  # and keeps up
    kept = KEEP_RUNS + between_purges + SOURCES * 24 * KEEP_DAYS  # the newest, and the last of each hour
    assert kept * bytes_per_run < LIMIT_BYTES, f"{bytes_per_run / 1000:.0f} kB per run, {kept} runs"


def size(directory: Path) -> int:
    """Of all files, as they are when the databases are at rest."""
    return sum(
        file.stat().st_size for file in directory.rglob("*") if file.is_file() and not file.name.endswith("-shm")
    )
