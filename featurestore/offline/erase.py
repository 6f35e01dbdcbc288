"""Erased rows, taken out of the lake: the files that hold any are written once more without them.

No reader has seen these rows since the erasure was in the database; the new files take the place of the old ones in one
transaction, which looks whether everything else is in them. By one process at a time; doing it again changes nothing.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

import duckdb
import pyarrow as pa

from featurestore.database.client import Database
from featurestore.database.jobs import LakeFile, MoveJob
from featurestore.database.tables import read_files
from featurestore.landing.disk import DiskStorage
from featurestore.offline.export import Kind, write_file
from featurestore.offline.lake import Lake
from featurestore.offline.manifest import publish
from featurestore.order import HEAD

log = logging.getLogger(__name__)

_TARGETS = "SELECT DISTINCT target FROM lake_files ORDER BY target"
_FILES = "SELECT name, path, kind, bucket, buckets FROM lake WHERE target = $target ORDER BY name"
_HIDDEN = "SELECT commit_seq, sequence FROM hidden_rows WHERE target = $target"
_ERASED = """
    SELECT batch_id, sequence FROM erased_rows SEMI JOIN (FROM applied WHERE target = $target) USING (batch_id)
"""
_LINES = "SELECT * EXCLUDE (batch_hash) FROM applied WHERE target = $target AND commit_seq IN $commit_seqs"

# What is left of a file, by its kind; and whether that is less, or says something else.
_LEFT = {
    "rows": "FROM {file} ANTI JOIN hidden USING (commit_seq, sequence)",
    "quarantined": "FROM {file} ANTI JOIN erased USING (batch_id, sequence)",
}


def take_out(lake: Lake, database: Database) -> int:
    """Write the files that hold erased rows once more; returns how many.

    Raises:
        TransientError: another process changes the lake, or the database does not answer; it can be gone on with.
    """
    replaced = 0
    with lake.alone():
        for one in database.query(_TARGETS, into=_Target):
            replaced += _take_out_of(lake, database, one.target)
        if replaced:
            publish(lake.root, database, datetime.now(UTC))  # before the old files go: a rebuild reads what it lists
        lake.sweep(database)
    return replaced


@dataclass(frozen=True, slots=True)
class _Target:
    target: str


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    path: str
    kind: Kind
    bucket: int
    buckets: int


def _take_out_of(lake: Lake, database: Database, target: str) -> int:
    wanted = {"target": target}
    erased = database.query_arrow(_ERASED, wanted)
    if not erased.num_rows:
        return 0
    storage, made, replaces = DiskStorage(lake.root), list[LakeFile](), list[str]()
    with duckdb.connect() as local:
        local.register("erased", erased)
        local.register("hidden", database.query_arrow(_HIDDEN, wanted))
        for file in database.query(_FILES, wanted, into=_File):
            for left in _changed(local, database, target, file):
                made += [_write(storage, target, file, left)] if left.num_rows else []
                replaces.append(file.name)
    if not replaces:
        return 0
    day = datetime.fromisoformat(replaces[0].split("/")[1]).date()
    files, old = tuple(made), tuple(replaces)
    database.move(MoveJob(job_id=uuid4().hex, target=target, day=day, commit_seq=0, files=files, replaces=old))
    log.info("%d files of %s were written anew without erased rows", len(replaces), target)
    return len(replaces)


def _changed(local: duckdb.DuckDBPyConnection, database: Database, target: str, file: _File) -> Iterator[pa.Table]:
    """What the file is to hold from now on, if that is something else."""
    whole = read_files([file.path])
    if file.kind == "ledger":
        here = local.sql(f"SELECT * FROM {whole}").to_arrow_table()
        if local.sql(f"SELECT 1 FROM {whole} SEMI JOIN erased USING (batch_id) LIMIT 1").fetchall():
            commit_seqs: list[int] = here["commit_seq"].to_pylist()  # pyright: ignore[reportAssignmentType]
            now = database.query_arrow(_LINES, {"target": target, "commit_seqs": commit_seqs})
            if not now.sort_by("commit_seq").equals(here.sort_by("commit_seq")):
                yield now.sort_by("commit_seq")
        return
    left = local.sql(f"SELECT * {_LEFT[file.kind].format(file=whole)}").to_arrow_table()
    if left.num_rows < local.sql(f"SELECT count(*) FROM {whole}").fetchall()[0][0]:
        by = HEAD if file.kind == "rows" else ("batch_id", "sequence")
        yield left.sort_by([(name, "ascending") for name in by])


def _write(storage: DiskStorage, target: str, file: _File, table: pa.Table) -> LakeFile:
    day = datetime.fromisoformat(file.name.split("/")[1]).date()
    name = f"{uuid4().hex}-{f'{file.bucket:04d}' if file.kind == 'rows' else file.kind}"
    return write_file(storage, (target, day), name, table, file.kind, bucket=file.bucket, buckets=file.buckets)
