"""A training set can be made again, to the byte, whatever happened to the log since."""

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

import featurestore as fs
from featurestore.apply import apply_batches
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.database.jobs import DropJob
from featurestore.landing.retention import tend
from featurestore.landing.zone import LandingZone
from featurestore.offline.lake import Lake
from featurestore.offline.tables import schema_job
from featurestore.online.memory import MemoryOnlineStore
from featurestore.recovery.rebuild import rebuild
from featurestore.store import Store
from featurestore.training.training_set import TrainingSet
from featurestore_dagster.testing import land

START = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)

USER = fs.Entity("user", key="user_id")
EVENTS = fs.KafkaSource("events", timestamp="at", schema={"user_id": int, "x": float | None})
FIRST = fs.FeatureView(
    "view",
    USER,
    EVENTS,
    [fs.Feature("x", float), fs.Aggregation("total", "sum", "x", windows=("1h", "7d"))],
)
SECOND = fs.FeatureView("view", USER, EVENTS, [fs.Feature("x", float, "2 * x")], version=2)
SPINE = pa.table(
    {
        "user_id": [number % 4 for number in range(60)],
        "event_timestamp": [START + number * 97 * MINUTE for number in range(60)],
    }
)


class Platform:
    """A landing zone, a lake and a database file, opened for each step as after a restart."""

    def __init__(self, home: Path) -> None:
        self.file, self.zone, self.lake = home / "own.duckdb", LandingZone(home / "landing"), Lake(home / "lake")
        self.views: Sequence[fs.FeatureView] = [FIRST]
        self.landed = 0

    def open(self) -> "closing[EmbeddedDatabase]":
        return closing(EmbeddedDatabase(self.file, lake_dir=self.lake.root))

    def store(self, database: EmbeddedDatabase) -> Store:
        return Store(fs.Project(tuple(self.views)), database, MemoryOnlineStore())

    def arrive(self, day: int, late: timedelta = 0 * DAY) -> None:
        """Five batches that land within an hour, and are applied."""
        at = START + day * DAY
        for number in range(5):
            self.landed += 1
            rows = [{"user_id": n % 4, "at": at - late - n * 7 * MINUTE, "x": 0.1 * n + self.landed} for n in range(40)]
            land({"landing": self.zone}, EVENTS, rows, created_at=at + number * MINUTE)
        with self.open() as database:
            database.ensure(schema_job(fs.Project(tuple(self.views))))
            for view in self.views:
                apply_batches(view, self.zone.batches("events"), self.zone, database, None)

    def made(self) -> TrainingSet:
        with self.open() as database:
            return self.store(database).training_set(SPINE, [FIRST])

    def made_again(self, one: TrainingSet) -> TrainingSet:
        with self.open() as database:
            return self.store(database).reproduce(one.receipt, SPINE)


def more_data(platform: Platform) -> None:
    platform.arrive(4)


def late_data(platform: Platform) -> None:
    platform.arrive(4, late=3 * DAY)


def a_second_version(platform: Platform) -> None:
    platform.views = [FIRST, SECOND]
    platform.arrive(4)
    platform.views = [SECOND]
    platform.arrive(5)


def a_move_to_the_lake(platform: Platform) -> None:
    with platform.open() as database:
        assert platform.lake.move(database, "view", START + 40 * DAY).rows > 0


def late_data_in_the_lake(platform: Platform) -> None:
    late_data(platform)
    a_move_to_the_lake(platform)
    late_data(platform)
    a_move_to_the_lake(platform)


def a_compaction(platform: Platform) -> None:
    done = tend(platform.zone, EVENTS, START + 40 * DAY, is_applied=lambda _: True, is_in_lake=lambda _: True)
    assert done.compacted_batches > 0
    late_data(platform)


def test_whatever_happened_since(tmp_path: Path) -> None:
    platform = Platform(tmp_path)
    for day in range(3):
        platform.arrive(day)
    one = platform.made()
    for step in (more_data, late_data, a_second_version, a_move_to_the_lake, late_data_in_the_lake, a_compaction):
        step(platform)
        again = platform.made_again(one)
        assert again.receipt.to_json() == one.receipt.to_json(), step
        assert again.table.equals(one.table), step
    platform.views = [FIRST]
    assert platform.made().receipt.sha256 != one.receipt.sha256  # what is there did change


def test_a_version_that_was_dropped_is_named(tmp_path: Path) -> None:
    platform = Platform(tmp_path)
    platform.arrive(0)
    one = platform.made()
    with platform.open() as database:
        database.ensure(DropJob(job_id="1", target=FIRST.target))
    with pytest.raises(fs.TerminalError, match=r"the log no longer has view@v1"):
        platform.made_again(one)


def test_a_rebuild_keeps_what_is_in_the_lake_and_is_named_where_that_is_not_all(tmp_path: Path) -> None:
    platform = Platform(tmp_path)
    platform.arrive(0)
    a_move_to_the_lake(platform)
    of_the_lake = platform.made()
    platform.arrive(1)
    one = platform.made()
    rebuild(fs.Project((FIRST,)), platform.file, platform.zone, platform.lake, progress=lambda *_: None)
    assert platform.made_again(of_the_lake).table.equals(of_the_lake.table)
    with pytest.raises(fs.TerminalError, match=r"this database was made on .*, after the set: it was rebuilt"):
        platform.made_again(one)
    anew = platform.made()
    assert anew.table.equals(one.table)
    assert platform.made_again(anew).table.equals(one.table)
