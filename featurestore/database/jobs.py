"""Write jobs and their replies: plain values. There is no SQL in a job. See wire for their form on the stream."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import ClassVar, Literal

import msgspec
import pyarrow as pa

from featurestore.definitions.names import check_name
from featurestore.errors import DefinitionError, JobRefusedError, TransientError

_LAKE_FILE = re.compile(r"[a-z0-9_]+/\d{4}-\d{2}-\d{2}/[a-z0-9-]+\.parquet")  # <log>/<landing day>/<file>
COLUMN_TYPES = frozenset({"VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN"})


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """What became of one batch in one target: rows_in = logged + filtered + quarantined + erased."""

    batch_id: str
    target: str
    code_digest: str
    rows_in: int
    logged: int
    filtered: int
    quarantined: int
    erased: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class AppendJob:
    """Rows of some batches for one target, with the ledger lines of these batches (zero-row batches included).

    `rows` and `quarantined` have a column `line`, the index of their ledger line; it is not stored.
    """

    kind: ClassVar[str] = "append"
    job_id: str
    target: str
    lines: tuple[LedgerLine, ...]
    rows: pa.Table
    quarantined: pa.Table


@dataclass(frozen=True, slots=True)
class FeatureColumn:
    """A row feature of a log table, with its DuckDB type."""

    name: str
    dtype: str
    online: bool


@dataclass(frozen=True, slots=True)
class ViewTable:
    """The log table of one version of a view. Columns are (name, DuckDB type), without the head."""

    target: str
    view: str
    version: int
    entity: str
    source: str
    digest: str
    columns: tuple[tuple[str, str], ...]
    features: tuple[FeatureColumn, ...]

    def __post_init__(self) -> None:
        check_name(self.view, "view")
        if self.version < 1 or self.target != f"{self.view}@v{self.version}":
            raise DefinitionError(f"target {self.target!r} is not version {self.version} of view {self.view!r}")
        for name, dtype in self.columns:
            check_name(name, "column")
            if dtype not in COLUMN_TYPES:
                raise DefinitionError(f"column {name!r}: {dtype!r} is not one of {', '.join(sorted(COLUMN_TYPES))}")
        columns = dict(self.columns)
        for feature in self.features:
            if columns.get(feature.name) != feature.dtype:
                raise DefinitionError(f"feature {feature.name!r} is not a column of type {feature.dtype}")

    @property
    def relation(self) -> str:
        """The log's name in SQL: every row, wherever it is. View names are checked, so it needs no quoting rules."""
        return f'log."{self.view}_v{self.version}"'

    @property
    def hot_relation(self) -> str:
        """The table of the rows that have not moved to the lake."""
        return f'hot."{self.view}_v{self.version}"'


@dataclass(frozen=True, slots=True)
class SchemaJob:
    """Creates the tables that are missing and brings `features` up to date; all of them or, when refused, none."""

    kind: ClassVar[str] = "schema"
    job_id: str
    tables: tuple[ViewTable, ...]


@dataclass(frozen=True, slots=True)
class ActivateJob:
    """Makes a registered version the active one of its view: what readers that name no version get.

    Not `by_hand`, it is refused unless the version may still become active by itself and has every batch of the one
    that is active.
    """

    kind: ClassVar[str] = "activate"
    job_id: str
    target: str
    by_hand: bool


@dataclass(frozen=True, slots=True)
class DropJob:
    """Drops the log of a version that is not active (or the last of its view): its number is not used again."""

    kind: ClassVar[str] = "drop"
    job_id: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeFile:
    """A Parquet file of the lake; `name` is its path below the lake's directory.

    Files of rows hold those of the entities whose hash64 modulo `buckets` is `bucket`. The others are what a rebuild
    needs beside the rows: their lines of the ledger, and the quarantined rows of these.
    """

    name: str
    kind: Literal["rows", "ledger", "quarantined"]
    bucket: int = 0
    buckets: int = 1
    row_count: int
    size_bytes: int
    digest: str

    def __post_init__(self) -> None:
        if not _LAKE_FILE.fullmatch(self.name):
            raise DefinitionError(f"{self.name!r} does not name a file of the lake")

    @property
    def is_rows(self) -> bool:
        return self.kind == "rows"

    @property
    def day(self) -> date:
        """When its rows landed."""
        return date.fromisoformat(self.name.split("/")[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveJob:
    """The rows of a log that landed on `day`, up to `commit_seq`, are in `files` now: let DuckDB forget its own.

    With `replaces` it is other files of the lake whose rows these are, but for those that were erased; without `files`,
    nobody is to read them any more. With `commit_seq` 0 no rows move, but lines of the ledger that have none.
    """

    kind: ClassVar[str] = "move"
    job_id: str
    target: str
    day: date
    commit_seq: int
    files: tuple[LakeFile, ...]
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EraseJob:
    """Take away what was made of an entity's landed rows, in every view of the sources; readers see it no more.

    `rows` (batch_id, sequence) are those that landed files hold; what the log has of the entity beyond them is found
    by its id.
    """

    kind: ClassVar[str] = "erase"
    job_id: str
    entity: str
    key: tuple[str, ...]  # its columns in the sources
    entity_id: str
    sources: tuple[str, ...]
    erased_at: datetime  # rows that landed later stay
    rows: Mapping[str, tuple[int, ...]]  # sequences by batch

    def __post_init__(self) -> None:
        for name in self.key:
            check_name(name, "entity key")


@dataclass(frozen=True, slots=True)
class VacuumJob:
    """Write the database's file anew, so that it holds no bytes of what was deleted; everyone waits meanwhile."""

    kind: ClassVar[str] = "vacuum"
    job_id: str


CatalogueJob = SchemaJob | ActivateJob | DropJob
LakeJob = MoveJob | EraseJob
Job = AppendJob | CatalogueJob | LakeJob | VacuumJob

WITHOUT_ROWS: Mapping[str, type[CatalogueJob | LakeJob | VacuumJob]] = {
    cls.kind: cls for cls in (SchemaJob, ActivateJob, DropJob, MoveJob, EraseJob, VacuumJob)
}


@dataclass(frozen=True, slots=True)
class AppendReply:
    """One entry per ledger line. A skipped line was applied before; its commit_seq is the earlier one."""

    commit_seqs: tuple[int, ...]
    skipped: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class JobReply:
    """The outcome of a job; `error` is empty when it was done. With `retry` the job itself is not to blame."""

    job_id: str
    commit_seqs: tuple[int, ...] = ()
    skipped: tuple[bool, ...] = ()
    batch_ids: tuple[str, ...] = ()  # of a feature job: what was landed
    error: str = ""
    retry: bool = False

    def to_json(self) -> bytes:
        if self.error:
            return msgspec.json.encode({"job_id": self.job_id, "error": self.error, "retry": self.retry})
        if self.batch_ids:
            return msgspec.json.encode({"job_id": self.job_id, "batch_ids": self.batch_ids})
        return msgspec.json.encode({"job_id": self.job_id, "commit_seqs": self.commit_seqs, "skipped": self.skipped})

    @classmethod
    def from_json(cls, data: bytes) -> "JobReply":
        return msgspec.json.decode(data, type=cls)

    def appended(self) -> AppendReply:
        """Raises JobRefusedError, or TransientError, with the service's reason."""
        if self.error:
            raise TransientError(self.error) if self.retry else JobRefusedError(self.error)
        return AppendReply(self.commit_seqs, self.skipped)
