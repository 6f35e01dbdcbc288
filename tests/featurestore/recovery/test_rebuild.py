"""The database made anew has an equal log, whatever was moved, compacted and lost before."""

import random
import shutil
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

import featurestore as fs
from featurestore.apply import apply_batches
from featurestore.database.client import Database
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.errors import CorruptFileError, TransientError
from featurestore.landing.batch import Batch
from featurestore.landing.retention import tend
from featurestore.landing.zone import LandingZone
from featurestore.offline.lake import Lake, first_outside
from featurestore.offline.log import Ledger
from featurestore.offline.relations import log_relation
from featurestore.offline.tables import schema_job
from featurestore.recovery.rebuild import Rebuilt, rebuild
from featurestore_dagster.testing import land
from tests.stepwise import kill_at_each_step

START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LATER = START + 100 * DAY

USER = fs.Entity("user", key="user_id")
EVENTS = fs.KafkaSource("events", timestamp="at", schema={"user_id": int, "n": int | None, "s": str}, keep="3d")
VIEW = fs.FeatureView(
    "view", USER, EVENTS, [fs.Feature("n", int), fs.Feature("s", str)], expect=[fs.Expectation("n <> 13")]
)
EVEN = fs.FeatureView("even", USER, EVENTS, [fs.Feature("half", float, "n / 2.0")], where="n % 2 = 0")
PROJECT = fs.Project((VIEW, EVEN))


class Store:
    """A landing zone, a lake and a database in one directory."""

    def __init__(self, home: Path) -> None:
        self.file, self.zone, self.lake = home / "features.duckdb", LandingZone(home / "landing"), Lake(home / "lake")

    def open(self) -> "closing[EmbeddedDatabase]":
        return closing(EmbeddedDatabase(self.file, lake_dir=self.lake.root))

    def apply(self) -> None:
        with self.open() as database:
            database.ensure(schema_job(PROJECT))
            for view in PROJECT.feature_views:
                apply_batches(view, self.zone.batches("events"), self.zone, database, None)

    def move(self, now: datetime) -> None:
        with self.open() as database:
            for view in PROJECT.feature_views:
                self.lake.move(database, view.name, now)

    def tend(self, now: datetime) -> None:
        """Compact and remove; what has rows that only DuckDB has is kept."""
        with self.open() as database:
            outside = {view.target: first_outside(database, view.target) for view in PROJECT.feature_views}
            ledger = Ledger()
            ledger.refresh(database)

        def is_in_lake(batch: Batch) -> bool:
            lines = ((ledger.rows[batch.batch_id, target].commit_seq, first) for target, first in outside.items())
            return all(first is None or commit_seq < first for commit_seq, first in lines)

        tend(self.zone, EVENTS, now, is_applied=lambda _: True, is_in_lake=is_in_lake)

    def rebuild(self) -> Rebuilt:
        return rebuild(PROJECT, self.file, LandingZone(self.zone.storage), self.lake, progress=lambda *_: None)

    def digest(self) -> object:
        with self.open() as database:
            return digest(database)


def digest(database: Database) -> object:
    """Of every table of the log, without the commit_seq, which says when it was written."""
    columns = "entity_id, event_timestamp, created_at, sequence, tie, COLUMNS(* EXCLUDE (entity_id, event_timestamp, "
    columns += "created_at, sequence, tie, commit_seq))"
    logs = [
        database.query_arrow(f"SELECT {columns} FROM {log_relation(view)} ORDER BY ALL").to_pylist()
        for view in PROJECT.feature_views
    ]
    ledger = database.query_arrow("SELECT * EXCLUDE (commit_seq, applied_at) FROM applied ORDER BY ALL").to_pylist()
    held = database.query_arrow("SELECT * FROM quarantined_rows ORDER BY ALL").to_pylist()
    return logs, ledger, held


def fill(store: Store, dice: random.Random, batches: int, at: datetime) -> datetime:
    """Land batches at times that grow; returns the last one."""
    for _ in range(batches):
        at += dice.choice([timedelta(minutes=3), HOUR, DAY])
        rows = [
            {"user_id": dice.randrange(5), "at": at - dice.random() * DAY, "n": dice.choice([None, 13, 1, 2]), "s": "ü"}
            for _ in range(dice.randrange(1, 4))
        ]
        land({"landing": store.zone}, EVENTS, rows, created_at=at)
    return at


@pytest.mark.parametrize("seed", range(4))
def test_a_rebuilt_log_is_equal(tmp_path: Path, seed: int) -> None:
    dice, store, at = random.Random(seed), Store(tmp_path), START
    for _ in range(5):
        at = fill(store, dice, 6, at)
        store.apply()
        if dice.random() < 0.7:
            store.move(at)
        if dice.random() < 0.7:
            store.tend(at)
    store.move(at + 30 * DAY)
    before = store.digest()
    if seed % 2:  # also of batches of which nothing was logged, the lake alone knows now
        store.tend(at + 30 * DAY)
        assert len(LandingZone(store.zone.storage).batches()) < 10
    store.file.unlink()
    store.rebuild()
    assert store.digest() == before
    store.rebuild()  # and again
    assert store.digest() == before


def test_commit_seqs_do_not_start_again_and_moves_go_on(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, random.Random(1), 12, START)
    store.apply()
    store.move(LATER)
    with store.open() as database:
        [last] = database.query_arrow("SELECT max(commit_seq) AS seq FROM applied").to_pylist()
        epoch = database.query_arrow("SELECT epoch FROM store_info").to_pylist()
    fill(store, random.Random(2), 12, LATER)
    store.rebuild()
    with store.open() as database:
        found = database.query_arrow("SELECT min(commit_seq) AS first FROM hot.view_v1").to_pylist()
        assert found[0]["first"] > last["seq"]
        assert database.query_arrow("SELECT epoch FROM store_info").to_pylist() != epoch
    before = store.digest()
    store.move(LATER + 100 * DAY)
    assert store.digest() == before


def test_a_database_that_cannot_be_read_is_made_anew(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, random.Random(1), 12, START)
    store.apply()
    before = store.digest()
    store.file.write_bytes(b"damaged" * 1000)
    store.rebuild()
    assert store.digest() == before


def test_a_database_in_use_is_left_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.apply()
    inode = store.file.stat().st_ino
    script = f"import duckdb; c = duckdb.connect({str(store.file)!r}); print('open', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin
        assert holder.stdout
        holder.stdout.readline()
        with pytest.raises(TransientError, match="in use"):
            store.rebuild()
        holder.stdin.close()
    assert store.file.stat().st_ino == inode


def test_damage_is_said_and_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, random.Random(1), 12, START)
    store.apply()
    before = store.digest()
    victim = next((tmp_path / "landing").rglob(f"{0:020d}.parquet"))
    data = bytearray(victim.read_bytes())
    data[30] ^= 1
    victim.write_bytes(data)
    with pytest.raises(CorruptFileError):
        store.rebuild()
    assert store.digest() == before


def rebuild_in(home: Path) -> None:
    Store(home).rebuild()


@pytest.mark.slow
def test_killed_at_any_step_the_old_database_or_the_new_one_is_there(tmp_path: Path) -> None:
    home = tmp_path / "home"
    store = Store(home)
    fill(store, random.Random(1), 12, START)
    store.apply()
    store.move(LATER)
    before = store.digest()

    def check() -> None:
        assert store.digest() == before
        store.rebuild()
        assert store.digest() == before

    assert kill_at_each_step("tests.featurestore.recovery.test_rebuild:rebuild_in", home, check=check) >= 2


def test_what_was_left_of_an_unfinished_one_is_no_matter(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, random.Random(1), 12, START)
    store.apply()
    before = store.digest()
    shutil.copy(store.file, store.file.with_name("features.duckdb.unfinished"))
    store.rebuild()
    assert store.digest() == before
    duckdb.connect(str(store.file)).close()
