"""The lake: rows leave DuckDB whole, once, and every reader goes on seeing each of them once."""

import shutil
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.database.client import Database
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.database.jobs import AppendJob, LakeFile, MoveJob
from featurestore.errors import CorruptFileError, JobRefusedError, TerminalError, TransientError
from featurestore.offline.lake import Lake, first_outside
from featurestore.offline.newest import newest_rows
from featurestore.offline.snapshot import LogSlice, fetch
from featurestore.online.memory import MemoryOnlineStore
from featurestore.order import HEAD
from featurestore.store import Store
from tests.featurestore.database.examples import (
    ACTIVITY,
    NOON,
    PROJECT,
    SCHEMA,
    held,
    job,
    line,
    quarantine,
    row,
    table,
)
from tests.featurestore.database.serving import client, on_a_thread, settings_for
from tests.stepwise import kill_at_each_step

DAY = timedelta(days=1)
LATER = NOON + 10 * DAY


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake", after_days=1)


@pytest.fixture
def database(tmp_path: Path) -> Generator[EmbeddedDatabase]:
    with opened(tmp_path) as database:
        database.ensure(SCHEMA)
        yield database


@contextmanager
def opened(home: Path) -> Iterator[EmbeddedDatabase]:
    with closing(EmbeddedDatabase(home / "own.duckdb", lake_dir=home / "lake")) as database:
        yield database


def landed(batch_id: str, rows: int, days: int = 0) -> AppendJob:
    """A batch that landed so many days after the first day."""
    at = (NOON + days * DAY).replace(tzinfo=None)
    made = [row(batch_id, number, created_at=at) for number in range(rows)]
    return job((batch_id, rows), job_id=batch_id, rows=table(*made))


def everything(database: Database, relation: str = "log.activity_v1") -> pa.Table:
    rows = database.query_arrow(f"FROM {relation}")
    return rows.sort_by([(name, "ascending") for name in ("tie", "sequence")])


def counts(database: Database) -> dict[str, int]:
    [found] = database.query_arrow(
        "SELECT (SELECT count(*) FROM log.activity_v1) AS log, (SELECT count(*) FROM hot.activity_v1) AS hot, "
        "(SELECT count(*) FROM features WHERE feature_name = 'steps') AS features"
    ).to_pylist()
    return found


def test_closed_days_leave_and_everything_is_read_as_before(database: EmbeddedDatabase, lake: Lake) -> None:
    for day in range(4):
        database.append(landed(f"of day {day}", 50, day))
    slices = [LogSlice(target=ACTIVITY.target, columns=["steps", "last_action"])]
    before, newest, long = everything(database), newest_rows(database, ACTIVITY), everything_long(database)
    pinned = fetch(database, slices, progress=lambda *_: None)

    moved = lake.move(database, "activity", NOON + 3 * DAY)  # the days 0 and 1 are closed for a day

    assert (moved.days, moved.rows, moved.files) == (2, 100, 4)
    assert counts(database) == {"log": 200, "hot": 100, "features": 200}
    assert everything(database).equals(before)
    assert everything_long(database).equals(long)
    assert newest_rows(database, ACTIVITY).equals(newest)
    again = fetch(database, slices, pinned.commit_seq, progress=lambda *_: None)
    by = [(name, "ascending") for name in (*HEAD, "steps")]
    assert again.logs[ACTIVITY.target].sort_by(by).equals(pinned.logs[ACTIVITY.target].sort_by(by))
    assert lake.move(database, "activity", NOON + 3 * DAY).rows == 0


def everything_long(database: Database) -> pa.Table:
    return database.query_arrow("FROM features ORDER BY ALL")


def test_a_training_set_is_the_same_after_a_move(database: EmbeddedDatabase, lake: Lake) -> None:
    for day in range(3):
        database.append(landed(f"of day {day}", 50, day))
    store = Store(PROJECT, database, MemoryOnlineStore())
    times = [NOON + timedelta(seconds=7 * number) for number in range(20)]
    spine = pa.table({"user_id": [number % 11 for number in range(20)], "event_timestamp": times})
    made = store.training_set(spine, [ACTIVITY])
    lake.move(database, "activity", LATER)
    assert store.reproduce(made.receipt, spine).table.equals(made.table)
    assert store.training_set(spine, [ACTIVITY]).receipt == made.receipt


def test_files_are_sorted_by_entity_and_cut_into_buckets(
    database: EmbeddedDatabase, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featurestore.offline.export.BUCKET_ROWS", 30)
    monkeypatch.setattr("featurestore.offline.snapshot._PAGE_BYTES", 3000)  # several pages to a bucket
    database.append(landed("a", 100))
    before = everything(database)
    lake.move(database, "activity", LATER)
    files = database.query_arrow("FROM lake WHERE kind = 'rows' ORDER BY bucket").to_pylist()
    assert {one["buckets"] for one in files} == {4}
    assert len(files) > 1
    for one in files:
        rows = pq.read_table(one["path"], partitioning=None)
        assert rows.equals(rows.sort_by([(name, "ascending") for name in HEAD]))
        assert rows.num_rows == one["row_count"]
    assert everything(database).equals(before)
    for entity in range(10):  # of which each is in one bucket
        wanted = LogSlice(target=ACTIVITY.target, columns=["steps"], entity_ids=[str(entity)])
        found = fetch(database, [wanted], progress=lambda *_: None).logs[ACTIVITY.target]
        assert sorted(found["steps"].to_pylist()) == list(range(entity, 100, 10))


def test_what_lands_late_gets_files_of_its_own(database: EmbeddedDatabase, lake: Lake, tmp_path: Path) -> None:
    database.append(landed("a", 10))
    lake.move(database, "activity", LATER)
    first = {path: path.read_bytes() for path in (tmp_path / "lake").glob("*/*/*")}
    database.append(landed("b", 5))
    database.append(landed("a", 10))  # sent again
    assert counts(database) == {"log": 15, "hot": 5, "features": 15}
    lake.move(database, "activity", LATER)
    assert counts(database) == {"log": 15, "hot": 0, "features": 15}
    assert {path: path.read_bytes() for path in first} == first


def test_rows_with_times_of_their_own_leave_with_their_batch(database: EmbeddedDatabase, lake: Lake) -> None:
    times = [(NOON + days * DAY).replace(tzinfo=None) for days in (-900, -1, 3)]
    made = [row("import", number, created_at=time) for number, time in enumerate(times)]
    database.append(job(("import", 3), rows=table(*made)))
    assert lake.move(database, "activity", NOON + 2 * DAY).rows == 0
    assert lake.move(database, "activity", LATER).rows == 3
    manifest = lake.manifest()
    assert manifest is not None
    assert {file.day for file in manifest.logs[0].files} == {(NOON + 3 * DAY).date()}


def test_days_that_are_too_old_are_gone(database: EmbeddedDatabase, lake: Lake, tmp_path: Path) -> None:
    for day in range(4):
        database.append(landed(f"of day {day}", 10, day))
    keep = {ACTIVITY.target: 8 * DAY}
    lake.move(database, "activity", LATER, keep=keep)
    assert counts(database) == {"log": 20, "hot": 0, "features": 20}
    assert sorted(path.name for path in (tmp_path / "lake" / "activity_v1").glob("*/*.parquet")) == sorted(
        Path(one["path"]).name for one in database.query_arrow("SELECT path FROM lake").to_pylist()
    )
    database.append(landed("of day 0", 10, 0))  # sent again: it was applied once and for all
    assert counts(database)["log"] == 20


def test_the_manifest_says_what_a_rebuild_needs(database: EmbeddedDatabase, lake: Lake, tmp_path: Path) -> None:
    lines = (line("a", 2, quarantined=1), line("b", 0, filtered=3), line("c", 0, quarantined=2))
    held_of_c = [held(2, sequence=number) for number in range(2)]
    rows, quarantined = table(row("a", 0), row("a", 1)), quarantine(held(), *held_of_c)
    first, *_ = database.append(AppendJob("job", ACTIVITY.target, lines, rows, quarantined)).commit_seqs
    assert lake.manifest() is None
    assert first_outside(database, ACTIVITY.target) == first
    for _ in range(2):  # and again, with nothing to move
        lake.move(database, "activity", LATER)
    assert first_outside(database, ACTIVITY.target) is None
    manifest = lake.manifest()
    assert manifest is not None
    [log] = manifest.logs
    assert (log.table, log.active) == (SCHEMA.tables[0], True)
    held_in_lake: dict[str, list[str]] = {}
    for one in log.files:
        if one.kind != "rows":
            found = pq.read_table(tmp_path / "lake" / one.name, partitioning=None)["batch_id"].to_pylist()
            held_in_lake.setdefault(one.kind, []).extend(found)  # type: ignore[arg-type]
    assert sorted(held_in_lake["ledger"]) == ["a", "b", "c"]
    assert sorted(held_in_lake["quarantined"]) == ["a", "c", "c"]
    assert [one.row_count for one in log.files if one.kind == "rows"] == [2]


def test_it_is_opened_again_wherever_the_lake_lies(database: EmbeddedDatabase, lake: Lake, tmp_path: Path) -> None:
    database.append(landed("a", 10))
    lake.move(database, "activity", LATER)
    database.close()
    (tmp_path / "lake").rename(tmp_path / "elsewhere")
    with pytest.raises(CorruptFileError, match="is gone"), opened(tmp_path):
        pass
    with closing(EmbeddedDatabase(tmp_path / "own.duckdb", lake_dir=tmp_path / "elsewhere")) as again:
        assert counts(again)["log"] == 10


def test_a_lake_is_of_one_database(database: EmbeddedDatabase, lake: Lake, tmp_path: Path) -> None:
    database.append(landed("a", 10))
    lake.move(database, "activity", LATER)
    files = set((tmp_path / "lake").rglob("*.parquet"))
    with closing(EmbeddedDatabase(lake_dir=tmp_path / "lake")) as other, pytest.raises(TerminalError, match="rebuild"):
        lake.move(other, "activity", LATER)
    assert set((tmp_path / "lake").rglob("*.parquet")) == files


def test_one_process_moves_at_a_time(database: EmbeddedDatabase, lake: Lake) -> None:
    with lake.alone(), pytest.raises(TransientError, match="another process"):
        lake.move(database, "activity", LATER)


class Altered(EmbeddedDatabase):
    """Sends other moves than it is asked for."""

    def move(self, job: MoveJob) -> None:
        super().move(self.alter(job))

    def alter(self, job: MoveJob) -> MoveJob:
        raise NotImplementedError


def _without(kind: str, job: MoveJob) -> MoveJob:
    return replace(job, files=tuple(file for file in job.files if file.kind != kind))


WRONG = {
    "another day": lambda job: replace(job, day=date(2026, 1, 30)),
    "an earlier moment": lambda job: replace(job, commit_seq=job.commit_seq - 1),
    "no rows": lambda job: _without("rows", job),
    "a file twice": lambda job: replace(job, files=(job.files[0], *job.files)),
    "a file that is not there": lambda job: replace(
        job, files=tuple(replace(file, name=file.name.replace(".p", "f.p")) for file in job.files)
    ),
    "another log": lambda job: replace(job, target="gone@v1"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_move_that_is_not_exactly_the_rows_is_refused(
    tmp_path: Path, lake: Lake, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Altered, "alter", lambda self, job: WRONG[what](job))
    with closing(Altered(tmp_path / "own.duckdb", lake_dir=tmp_path / "lake")) as database:
        database.ensure(SCHEMA)
        database.append(landed("a", 10))
        database.append(landed("b", 10))
        before = everything(database)
        with pytest.raises(JobRefusedError):
            lake.move(database, "activity", LATER)
        assert everything(database).equals(before)
        assert counts(database)["hot"] == 20


@pytest.mark.parametrize("name", ["../own.duckdb", "/etc/passwd", "activity_v1/2026-01-31/../x.parquet", "s3://a/b"])
def test_only_files_of_the_lake_can_be_named(name: str) -> None:
    with pytest.raises(ValueError, match="does not name a file"):
        LakeFile(name=name, kind="rows", row_count=1, size_bytes=1, digest="")


def test_a_link_out_of_the_lake_is_refused(database: EmbeddedDatabase, tmp_path: Path) -> None:
    outside = tmp_path / "outside.parquet"
    pq.write_table(pa.table({"a": [1]}), outside)
    inside = tmp_path / "lake" / "activity_v1" / "2026-01-31" / "a.parquet"
    inside.parent.mkdir(parents=True)
    inside.symlink_to(outside)
    file = LakeFile(name="activity_v1/2026-01-31/a.parquet", kind="rows", row_count=1, size_bytes=1, digest="")
    move = MoveJob(job_id="j", target=ACTIVITY.target, day=NOON.date(), commit_seq=1, files=(file,))
    with pytest.raises(JobRefusedError, match="no file"):
        database.move(move)


class Watched(EmbeddedDatabase):
    """Counts the rows right before and after it is told of a move: of the log, and with a pattern instead of a list."""

    def move(self, job: MoveJob) -> None:
        self.seen = [self.look()]
        super().move(job)
        self.seen.append(self.look())

    def look(self) -> tuple[int, int]:
        [row] = self.query_arrow(
            "SELECT (SELECT count(*) FROM log.activity_v1) AS log, (SELECT count(*) FROM hot.activity_v1) + "
            f"(SELECT count(*) FROM read_parquet('{self.lake_dir}/activity_v1/*/*-0000.parquet')) AS pattern"
        ).to_pylist()
        return row["log"], row["pattern"]


def test_no_row_is_there_twice_while_it_moves(tmp_path: Path, lake: Lake) -> None:
    with closing(Watched(tmp_path / "own.duckdb", lake_dir=tmp_path / "lake")) as database:
        database.lake_dir = tmp_path / "lake"
        database.ensure(SCHEMA)
        database.append(landed("a", 10))
        lake.move(database, "activity", LATER)
    (log_before, pattern_before), (log_after, pattern_after) = database.seen
    assert (log_before, log_after) == (10, 10)
    assert (pattern_before, pattern_after) == (20, 10)  # the negative control: with a pattern, each is there twice


def move_in(home: Path) -> None:
    with opened(home) as database:
        Lake(home / "lake", after_days=1).move(database, "activity", LATER)


@pytest.mark.slow
def test_a_move_that_is_killed_at_any_step_loses_and_doubles_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with opened(home) as database:
        database.ensure(SCHEMA)
        database.append(landed("a", 20))
        before = everything(database)

    def check() -> None:
        with opened(home) as database:
            assert everything(database).equals(before)
        move_in(home)  # the next move goes on, and takes away what was left behind
        with opened(home) as database:
            assert everything(database).equals(before)
            assert counts(database)["hot"] == 0
            listed = {Path(one["path"]) for one in database.query_arrow("SELECT path FROM lake").to_pylist()}
        assert set((home / "lake").glob("*/*/*")) == listed
        manifest = Lake(home / "lake").manifest()
        assert manifest is not None
        assert {home / "lake" / file.name for log in manifest.logs for file in log.files} == listed

    assert kill_at_each_step("tests.featurestore.offline.test_lake:move_in", home, check=check) > 7


@pytest.mark.services
def test_a_lost_database_is_not_replaced_by_an_empty_one(tmp_path: Path, redis_url: str) -> None:
    settings = settings_for(tmp_path, redis_url)
    with on_a_thread(settings), client(settings) as database:
        database.append(landed("a", 10))
        Lake(settings.lake_dir).move(database, "activity", LATER)
    shutil.rmtree(settings.database_file.parent)
    with pytest.raises(TerminalError, match="featurestore rebuild"), on_a_thread(settings):
        pass


@pytest.mark.services
@pytest.mark.slow
def test_moves_race_appends_and_readers(tmp_path: Path, redis_url: str) -> None:
    settings, over = settings_for(tmp_path, redis_url), threading.Event()
    batches, rows_each = 60, 40
    torn: list[object] = []

    def produce(database: Database) -> None:
        for number in range(batches):
            database.append(landed(f"batch {number}", rows_each, number % 3))

    def look(database: Database) -> int:
        looks = 0
        while not over.is_set():
            [seen] = database.query_arrow(
                "SELECT (SELECT count(*) FROM log.activity_v1) AS log, (SELECT count(DISTINCT (tie, sequence)) "
                "FROM log.activity_v1) AS different, (SELECT coalesce(sum(logged), 0)::BIGINT FROM applied) AS ledger"
            ).to_pylist()
            found = fetch(database, [LogSlice(target=ACTIVITY.target, columns=["steps"])], progress=lambda *_: None)
            params = {"pin": found.commit_seq}
            sql = "SELECT coalesce(sum(logged), 0)::BIGINT AS logged FROM applied WHERE commit_seq <= $pin"
            [pinned] = database.query_arrow(sql, params).to_pylist()
            if len(set(seen.values())) > 1 or found.logs[ACTIVITY.target].num_rows != pinned["logged"]:
                torn.append((seen, pinned, found.logs[ACTIVITY.target].num_rows))
            looks += 1
        return looks

    def move(database: Database) -> int:
        lake, moved = Lake(settings.lake_dir, after_days=1), 0
        while not over.is_set():
            moved += lake.move(database, "activity", LATER).days
        return moved + lake.move(database, "activity", LATER).days

    with on_a_thread(settings), client(settings) as database, ThreadPoolExecutor(4) as pool:
        looking, moving = [pool.submit(look, database) for _ in range(2)], pool.submit(move, database)
        try:
            pool.submit(produce, database).result(timeout=100)
        finally:
            over.set()
        assert all(one.result(timeout=60) > 0 for one in looking)
        assert moving.result(timeout=60) > 3
        assert torn == []
        assert counts(database) == {"log": batches * rows_each, "hot": 0, "features": batches * rows_each}
