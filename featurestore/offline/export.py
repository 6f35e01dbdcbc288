"""The files of the lake, written: rows of a landed day, sorted by entity, and what the ledger says of their batches."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal
from uuid import uuid4

import pyarrow as pa

from featurestore.database.client import Database
from featurestore.database.jobs import LakeFile
from featurestore.database.lake_files import landed_on
from featurestore.landing import parquet
from featurestore.landing.disk import DiskStorage
from featurestore.landing.storage import Storage
from featurestore.offline.relations import hot_relation, log_name
from featurestore.offline.snapshot import page_rows
from featurestore.order import HEAD

Kind = Literal["rows", "ledger", "quarantined"]

BUCKET_ROWS = 500_000  # about; a day has so many buckets (a power of two) that each can be sorted in memory
QUARANTINED_ROWS = 50_000  # in a file, about
_GROUP_ROWS = 65_536  # of the files: few, so that reading one entity reads little

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
    SELECT * FROM quarantined_rows WHERE target = $target AND sequence % $parts = $part AND batch_id IN (
        SELECT batch_id FROM applied WHERE target = $target AND commit_seq IN (SELECT unnest($commit_seqs))
    ) ORDER BY batch_id, sequence
"""


@dataclass(frozen=True, slots=True)
class LogColumns:
    """A log, and how many columns it has beside the head."""

    target: str
    columns: int


@dataclass(frozen=True, slots=True)
class _Bucket:
    bucket: int
    row_count: int


class Export:
    """Writes the files of one move, one after the other, each durable; they lie in the directory of `day`."""

    def __init__(self, database: Database, root: Path, log: LogColumns, day: date) -> None:
        self.move_id = uuid4().hex
        self._database, self._storage, self._log, self._day = database, DiskStorage(root), log, day

    def rows(self, row_count: int, commit_seq: int) -> Iterator[LakeFile]:
        """The rows that landed on the day, as of `commit_seq`, so that what is appended meanwhile stays where it is."""
        of_day = landed_on(hot_relation(self._log.target))
        bounds = {"day": self._day.isoformat(), "commit_seq": commit_seq}
        buckets = 1 << (max(1, -(-row_count // BUCKET_ROWS)) - 1).bit_length()
        found = self._query(_BUCKETS.format(rows=of_day), {**bounds, "buckets": buckets})
        for one in (_Bucket(**row) for row in found.to_pylist()):
            wanted = {**bounds, "buckets": buckets, "bucket": one.bucket}
            rows = self._in_pages(_ROWS.format(rows=of_day), wanted, -(-one.row_count // page_rows(self._log.columns)))
            rows = rows.sort_by([(name, "ascending") for name in HEAD])
            yield self._write(rows, "rows", f"{one.bucket:04d}", bucket=one.bucket, buckets=buckets)
        yield from self.ledger(self._query(_LINES.format(rows=of_day), {**bounds, "target": self._log.target}))

    def ledger(self, lines: pa.Table) -> Iterator[LakeFile]:
        """Lines of the ledger, and the quarantined rows of their batches."""
        yield self._write(lines, "ledger", "ledger")
        commit_seqs: list[int] = lines["commit_seq"].to_pylist()  # pyright: ignore[reportAssignmentType]
        held: list[int] = lines["quarantined"].to_pylist()  # pyright: ignore[reportAssignmentType]
        parts = -(-sum(held) // QUARANTINED_ROWS)
        wanted = {"target": self._log.target, "commit_seqs": commit_seqs, "parts": parts}
        for part in range(parts):
            rows = self._query(_QUARANTINED, {**wanted, "part": part})
            if rows.num_rows:
                yield self._write(rows, "quarantined", f"quarantined-{part:04d}")

    def _in_pages(self, sql: str, params: Mapping[str, str | int], parts: int) -> pa.Table:
        return pa.concat_tables([self._query(sql, {**params, "parts": parts, "part": part}) for part in range(parts)])

    def _query(self, sql: str, params: Mapping[str, str | int | Sequence[int]]) -> pa.Table:
        return self._database.query_arrow(sql, params)

    def _write(self, table: pa.Table, kind: Kind, what: str, bucket: int = 0, buckets: int = 1) -> LakeFile:
        place = (self._log.target, self._day)
        return write_file(self._storage, place, f"{self.move_id}-{what}", table, kind, bucket=bucket, buckets=buckets)


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
