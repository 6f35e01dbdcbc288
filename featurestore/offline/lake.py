"""The lake: landed days of the log that are closed, as Parquet files sorted by entity, outside DuckDB.

A move writes new files, makes them durable, and only then tells the database, which checks them against its own rows
and swaps the two in one transaction; the manifest is published after that. A crash in between leaves files that
nobody lists, and the next move takes them away. No file is changed once it is listed.
"""

import fcntl
import logging
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Literal
from uuid import uuid4

import pyarrow as pa

from featurestore.database.client import Database
from featurestore.database.jobs import LakeFile, MoveJob
from featurestore.database.lake_files import landed_on, landing_days
from featurestore.errors import TransientError
from featurestore.landing import parquet
from featurestore.landing.disk import DiskStorage, make_directories
from featurestore.landing.storage import Storage
from featurestore.offline.manifest import Manifest, listed_files, publish, read_manifest
from featurestore.offline.snapshot import newest_commit_seq, page_rows
from featurestore.offline.tables import hot_relation, log_name
from featurestore.order import HEAD

log = logging.getLogger(__name__)

Kind = Literal["rows", "ledger", "quarantined"]

BUCKET_ROWS = 500_000  # about; a day has so many buckets (a power of two) that each can be sorted in memory
_GROUP_ROWS = 65_536  # of the files: few, so that reading one entity reads little

_TARGETS = (
    "SELECT target, json_array_length(columns) AS columns FROM view_versions "
    'WHERE "view" = $view AND dropped_at IS NULL ORDER BY version'
)
_CLOSED = """
    SELECT landing_day AS day, CAST(sum(row_count) AS BIGINT) AS row_count FROM ({days})
    WHERE landing_day < $before GROUP BY landing_day ORDER BY landing_day
"""
_OLD = """
    SELECT landing_day, name FROM lake_files WHERE target = $target AND landing_day < $before
    ORDER BY landing_day, name
"""
_BUCKETS = """
    SELECT CAST(md5_number_lower(entity_id) % $buckets AS INTEGER) AS bucket, count(*) AS row_count
    FROM {rows} GROUP BY 1 ORDER BY 1
"""
_ROWS = "SELECT * FROM {rows} AND md5_number_lower(entity_id) % $buckets = $bucket AND sequence % $parts = $part"
_LINES = """
    SELECT * EXCLUDE (batch_hash) FROM applied
    WHERE target = $target AND commit_seq IN (SELECT commit_seq FROM {rows}) ORDER BY commit_seq
"""
_QUARANTINED = """
    SELECT * FROM quarantined_rows WHERE target = $target AND batch_id IN (
        SELECT batch_id FROM applied WHERE target = $target AND commit_seq IN (SELECT commit_seq FROM {rows})
    ) ORDER BY batch_id, sequence
"""


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
            for one in database.query(_TARGETS, {"view": view}, into=_Target):
                commit_seq = newest_commit_seq(database)
                closed = _CLOSED.format(days=landing_days(hot_relation(one.target)))
                bounds = {"before": before.isoformat(), "commit_seq": commit_seq}
                for day in database.query(closed, bounds, into=_Day):
                    moved += _move_day(_Export(database, self.root, one, day, commit_seq))
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
class _Target:
    target: str
    columns: int


@dataclass(frozen=True, slots=True)
class _Day:
    day: date
    row_count: int


@dataclass(frozen=True, slots=True)
class _OldFile:
    landing_day: date
    name: str


@dataclass(frozen=True, slots=True)
class _Bucket:
    bucket: int
    row_count: int


def _move_day(export: "_Export") -> Moved:
    files = tuple(export.files())
    export.database.move(
        MoveJob(
            job_id=export.move_id,
            target=export.log.target,
            day=export.closed.day,
            commit_seq=export.commit_seq,
            files=files,
        )
    )
    log.info("%s: %d rows of %s moved to the lake", export.log.target, export.closed.row_count, export.closed.day)
    size_bytes = sum(file.size_bytes for file in files)
    return Moved(days=1, rows=export.closed.row_count, files=len(files), bytes=size_bytes)


def _drop_before(database: Database, target: str, day: date) -> None:
    """Let nobody read the days before `day` any more."""
    old = database.query(_OLD, {"target": target, "before": day.isoformat()}, into=_OldFile)
    for landing_day, files in groupby(old, key=lambda one: one.landing_day):
        names = tuple(one.name for one in files)
        database.move(
            MoveJob(job_id=uuid4().hex, target=target, day=landing_day, commit_seq=0, files=(), replaces=names)
        )
        log.info("%s: the rows of %s are older than they are kept", target, landing_day)


class _Export:
    """The files of one move: a day's rows as of `commit_seq`, so that what is appended meanwhile stays where it is."""

    def __init__(self, database: Database, root: Path, target: _Target, closed: _Day, commit_seq: int) -> None:
        self.database, self.log, self.closed, self.commit_seq = database, target, closed, commit_seq
        self.move_id = uuid4().hex
        self._storage = DiskStorage(root)
        self._rows_of_day = landed_on(hot_relation(target.target))
        self._bounds = {"day": closed.day.isoformat(), "commit_seq": commit_seq}

    def files(self) -> Iterator[LakeFile]:
        """Write them, one after the other, each durable."""
        buckets = 1 << (max(1, -(-self.closed.row_count // BUCKET_ROWS)) - 1).bit_length()
        found = self._query(_BUCKETS, {"buckets": buckets})
        for one in (_Bucket(**row) for row in found.to_pylist()):
            yield self._write(self._rows(one, buckets), "rows", bucket=one.bucket, buckets=buckets)
        yield self._write(self._query(_LINES, {"target": self.log.target}), "ledger")
        quarantined = self._query(_QUARANTINED, {"target": self.log.target})
        if quarantined.num_rows:
            yield self._write(quarantined, "quarantined")

    def _rows(self, bucket: _Bucket, buckets: int) -> pa.Table:
        parts = -(-bucket.row_count // page_rows(self.log.columns))
        wanted = {"buckets": buckets, "bucket": bucket.bucket, "parts": parts}
        rows = pa.concat_tables([self._query(_ROWS, {**wanted, "part": part}) for part in range(parts)])
        return rows.sort_by([(name, "ascending") for name in HEAD])

    def _query(self, sql: str, params: Mapping[str, str | int]) -> pa.Table:
        return self.database.query_arrow(sql.format(rows=self._rows_of_day), {**self._bounds, **params})

    def _write(self, table: pa.Table, kind: Kind, bucket: int = 0, buckets: int = 1) -> LakeFile:
        what = f"{self.move_id}-{f'{bucket:04d}' if kind == 'rows' else kind}"
        place = (self.log.target, self.closed.day)
        return write_file(self._storage, place, what, table, kind, bucket=bucket, buckets=buckets)


def write_file(
    storage: Storage,
    place: tuple[str, date],
    name: str,
    table: pa.Table,
    kind: Kind,
    *,
    bucket: int = 0,
    buckets: int = 1,
) -> LakeFile:
    """Write a file of a target's landing day, durable, under a name that nobody else has."""
    target, day = place
    path = f"{log_name(target)}/{day.isoformat()}/{name}.parquet"
    with storage.writing(path) as file:
        digest = parquet.write(file, table, {"target": target, "kind": kind}, group_rows=_GROUP_ROWS)
        size_bytes = file.seek(0, os.SEEK_END)
        storage.create(file, path)
    return LakeFile(
        name=path,
        kind=kind,
        bucket=bucket,
        buckets=buckets,
        row_count=table.num_rows,
        size_bytes=size_bytes,
        digest=digest,
    )
