"""Where rows come from."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Literal, cast

from featurestore.definitions.dtypes import ScalarType, SchemaType, scalar_of
from featurestore.definitions.durations import duration
from featurestore.definitions.listed import shown
from featurestore.definitions.names import check_name
from featurestore.errors import DefinitionError

TimestampFormat = Literal["rfc3339", "s", "ms", "us"]


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """One column of a source's rows."""

    name: str
    dtype: ScalarType
    nullable: bool


@dataclass(frozen=True)
class Source:
    """Rows with a schema and the column that says when they happened.

    `created_at` names a column of rows that bring their own: since when they were known, at most their landing; without
    one, or where a row leaves it empty, that is the landing time.

    `keep` ("90d") is how long landed rows are kept once every view has them, `keep_dead_letters` the same of records
    that could not be landed; by default for ever.
    """

    name: str
    _: KW_ONLY
    timestamp: str
    schema: SchemaType = field(hash=False)
    timestamp_format: TimestampFormat = "rfc3339"
    created_at: str = ""
    unknown_fields: Literal["drop", "reject"] = "drop"
    keep: str = ""
    keep_dead_letters: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "source")
        self._check_time("timestamp", self.timestamp)
        if self.created_at:
            self._check_time("created_at", self.created_at)
        if self.created_at == self.timestamp:
            raise DefinitionError(f"source {self.name!r}: {self.timestamp!r} is the timestamp and created_at")
        for what, text in (("keep", self.keep), ("keep_dead_letters", self.keep_dead_letters)):
            if text:
                duration(text, f"source {self.name!r}, {what}")
        if not isinstance(cast(object, self.schema), Mapping):
            raise DefinitionError(
                f"source {self.name!r}, schema: {shown(self.schema)} is no mapping of columns to types"
            )
        for column, declared in self.schema.items():
            check_name(column, f"source {self.name!r}, column")
            scalar_of(declared, f"source {self.name!r}, column {column!r}")

    def _check_time(self, what: str, column: str) -> None:
        # It may well be called event_timestamp or created_at: that is what it becomes.
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", column):
            raise DefinitionError(f"source {self.name!r}: {what} {column!r} is not a lower_snake_case name")
        if column in self.schema:
            raise DefinitionError(f"source {self.name!r}: {column!r} is the {what}; leave it out of the schema")

    @cached_property
    def times(self) -> dict[str, str]:
        """The columns that are not in the schema, and what they are called when landed."""
        own = {self.created_at: "created_at"} if self.created_at else {}
        return {self.timestamp: "event_timestamp", **own}

    @cached_property
    def columns(self) -> dict[str, SourceColumn]:
        """The schema's columns by name, in order."""
        where = f"source {self.name!r}"
        return {name: SourceColumn(name, *scalar_of(declared, where)) for name, declared in self.schema.items()}

    @cached_property
    def schema_version(self) -> str:
        """Changes when a column's name, type or nullability does, or where the times come from."""
        return self.version_of(self.columns)

    def version_of(self, columns: Iterable[str]) -> str:
        """The schema version as if there were these columns alone."""
        wanted = set(columns)
        found = [column for name, column in self.columns.items() if name in wanted]
        text = ",".join(f"{c.name}:{c.dtype.__name__}{'?' * c.nullable}" for c in found)
        own = f":{self.created_at}" if self.created_at else ""
        return sha256(f"{self.timestamp}:{self.timestamp_format}{own};{text}".encode()).hexdigest()[:12]


@dataclass(frozen=True)
class KafkaSource(Source):
    """JSON records of one Kafka topic (by default the topic of the source's name)."""

    topic: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.created_at:
            raise DefinitionError(f"source {self.name!r}: a record of Kafka is known when it lands; no created_at")

    @property
    def topic_name(self) -> str:
        return self.topic or self.name


@dataclass(frozen=True)
class UploadSource(Source):
    """Parquet, CSV or NDJSON files sent over gRPC."""


@dataclass(frozen=True)
class AssetSource(Source):
    """Rows of a Dagster asset, or the Parquet files of a folder; each materialization or file is landed once.

    With `asset_key` ("warehouse/orders") alone, the asset's value is read through its IO manager. With `path`, the rows
    are those of the folder's files, and `asset_key` says which asset writes them.
    """

    asset_key: str = ""
    path: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.asset_key and not self.path:
            raise DefinitionError(f"source {self.name!r}: name the asset (asset_key=…) or the folder (path=…)")
