"""The lake: landed days of the log that are closed, as Parquet files sorted by entity, outside DuckDB.

A move writes new files, makes them durable, and only then tells the database, which checks them against its own rows
and swaps the two in one transaction; the manifest is published after that. A crash in between leaves files that
nobody lists, and the next move takes them away. No file is changed once it is listed.
"""

import fcntl
import logging
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path
from uuid import uuid4

from featurestore.database.client import Database
from featurestore.database.jobs import MoveJob
from featurestore.database.lake_files import landing_days
from featurestore.database.tables import read_files
from featurestore.errors import TransientError
from featurestore.landing.disk import make_directories
from featurestore.offline.export import Export, LogColumns
from featurestore.offline.manifest import Manifest, listed_files, publish, read_manifest
from featurestore.offline.relations import hot_relation
from featurestore.offline.snapshot import newest_commit_seq

log = logging.getLogger(__name__)

LINES = 50_000  # of the ledger, in one move

_TARGETS = (
    "SELECT target, json_array_length(columns) AS columns FROM view_versions "
    'WHERE "view" = $view AND dropped_at IS NULL ORDER BY version'
)
_CLOSED = """
    SELECT landing_day AS day, CAST(sum(row_count) AS BIGINT) AS row_count FROM ({days})
    WHERE landing_day < $before GROUP BY landing_day ORDER BY landing_day
"""
_OLD = """
    SELECT landing_day, name FROM lake_files WHERE target = $target AND kind = 'rows' AND landing_day < $before
    ORDER BY landing_day, name
"""
# What became of batches of which the log has no row; it waits for no day to be closed.
_LINES_WITHOUT_ROWS = """
    SELECT * EXCLUDE (batch_hash) FROM {outside} ANTI JOIN (SELECT DISTINCT commit_seq FROM {hot}) USING (commit_seq)
    WHERE target = $target ORDER BY commit_seq LIMIT $most
"""
_FIRST_OUTSIDE = "SELECT min(commit_seq) AS commit_seq FROM {outside} WHERE target = $target"
_LEDGER_FILES = "SELECT path FROM lake WHERE target = $target AND kind = 'ledger' ORDER BY path"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What left DuckDB."""

    days: int = 0
    rows: int = 0
    files: int = 0
    bytes: int = 0

    def __add__(self, other: "Moved") -> "Moved":
        return Moved(
            days=self.days + other.days,
            rows=self.rows + other.rows,
            files=self.files + other.files,
            bytes=self.bytes + other.bytes,
        )


class Lake:
    """The directory `root`, on the machine of the database service. One process moves at a time."""

    def __init__(self, root: Path, *, after_days: int = 7) -> None:
        """`after_days`: whole days (UTC) that rows stay in DuckDB after the day they landed."""
        self.root, self.after_days = root, after_days

    def manifest(self) -> Manifest | None:
        """What the lake holds, as it was last published; for readers that do without the service."""
        return read_manifest(self.root)

    def move(
        self, database: Database, view: str, now: datetime, *, keep: Mapping[str, timedelta] | None = None
    ) -> Moved:
        """Move the closed days of every version of a view; what lands late for a moved day gets files of its own.

        Days of a target that landed longer ago than `keep` says leave the lake: their rows are gone.

        Raises:
            TerminalError: the lake is another database's.
            TransientError: another process moves, or the database does not answer; the next move goes on.
        """
        before = now.astimezone(UTC).date() - timedelta(days=self.after_days)
        moved = Moved()
        with self.alone():
            self.sweep(database)
            for one in database.query(_TARGETS, {"view": view}, into=LogColumns):
                commit_seq = newest_commit_seq(database)
                closed = _CLOSED.format(days=landing_days(hot_relation(one.target)))
                bounds = {"before": before.isoformat(), "commit_seq": commit_seq}
                for day in database.query(closed, bounds, into=_Day):
                    export = Export(database, self.root, one, day.day)
                    moved += _move_day(export, database, one.target, day, commit_seq)
                moved += _move_lines(database, self.root, one, now.astimezone(UTC).date())
                if keep and one.target in keep:
                    _drop_before(database, one.target, (now - keep[one.target]).astimezone(UTC).date())
            publish(self.root, database, now)
            self.sweep(database)
        return moved

    def publish(self, database: Database, now: datetime) -> None:
        """Make `database` the one whose lake this is; it lists the files already."""
        with self.alone():
            publish(self.root, database, now)

    def sweep(self, database: Database) -> None:
        """Remove what interrupted moves have left, and what is no longer read; to be called `alone`."""
        listed = listed_files(self.root, database)
        for path in self.root.glob("*/*/*"):
            if str(path.relative_to(self.root)) not in listed:
                log.info("%s is listed nowhere", path)
                path.unlink()

    @contextmanager
    def alone(self) -> Generator[None]:
        """Raises TransientError while another process changes the lake."""
        make_directories(self.root, self.root.parent)
        handle = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise TransientError(f"another process works on {self.root}") from error
        finally:
            os.close(handle)


@dataclass(frozen=True, slots=True)
class _Day:
    day: date
    row_count: int


@dataclass(frozen=True, slots=True)
class _OldFile:
    landing_day: date
    name: str


@dataclass(frozen=True, slots=True)
class _Path:
    path: str


@dataclass(frozen=True, slots=True)
class _First:
    commit_seq: int | None


def first_outside(database: Database, target: str) -> int | None:
    """The commit_seq of the first ledger line that the lake does not have; None where it has all of them."""
    sql = _FIRST_OUTSIDE.format(outside=_outside(database, target))
    [first] = database.query(sql, {"target": target}, into=_First)
    return first.commit_seq


def _outside(database: Database, target: str) -> str:
    """The ledger, without the lines of a target that files of the lake have."""
    paths = [one.path for one in database.query(_LEDGER_FILES, {"target": target}, into=_Path)]
    return f"applied ANTI JOIN {read_files(paths, union=True)} USING (commit_seq)" if paths else "applied"


def _move_day(export: Export, database: Database, target: str, closed: _Day, commit_seq: int) -> Moved:
    files = tuple(export.rows(closed.row_count, commit_seq))
    move = MoveJob(job_id=export.move_id, target=target, day=closed.day, commit_seq=commit_seq, files=files)
    database.move(move)
    log.info("%s: %d rows of %s moved to the lake", target, closed.row_count, closed.day)
    return Moved(days=1, rows=closed.row_count, files=len(files), bytes=sum(file.size_bytes for file in files))


def _move_lines(database: Database, root: Path, one: LogColumns, today: date) -> Moved:
    moved, params = Moved(), {"target": one.target, "most": LINES}
    while True:
        outside, hot = _outside(database, one.target), hot_relation(one.target)
        lines = database.query_arrow(_LINES_WITHOUT_ROWS.format(outside=outside, hot=hot), params)
        if not lines.num_rows:
            return moved
        export = Export(database, root, one, today)
        files = tuple(export.ledger(lines))
        database.move(MoveJob(job_id=export.move_id, target=one.target, day=today, commit_seq=0, files=files))
        moved += Moved(files=len(files), bytes=sum(file.size_bytes for file in files))


def _drop_before(database: Database, target: str, day: date) -> None:
    """Let nobody read the days before `day` any more."""
    old = database.query(_OLD, {"target": target, "before": day.isoformat()}, into=_OldFile)
    for landing_day, files in groupby(old, key=lambda one: one.landing_day):
        names = tuple(one.name for one in files)
        database.move(
            MoveJob(job_id=uuid4().hex, target=target, day=landing_day, commit_seq=0, files=(), replaces=names)
        )
        log.info("%s: the rows of %s are older than they are kept", target, landing_day)
