"""Where rows come from."""

import re
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Literal

from featurestore.definitions.dtypes import ScalarType, SchemaType, scalar_of
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
    """Rows with a schema and the column that says when they happened."""

    name: str
    _: KW_ONLY
    timestamp: str
    schema: SchemaType = field(hash=False)
    timestamp_format: TimestampFormat = "rfc3339"
    unknown_fields: Literal["drop", "reject"] = "drop"
    description: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "source")
        # The timestamp may well be called event_timestamp: that is what it becomes.
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", self.timestamp):
            raise DefinitionError(f"source {self.name!r}: timestamp {self.timestamp!r} is not a lower_snake_case name")
        if self.timestamp in self.schema:
            raise DefinitionError(
                f"source {self.name!r}: {self.timestamp!r} is the timestamp; leave it out of the schema"
            )
        for column, declared in self.schema.items():
            check_name(column, f"source {self.name!r}, column")
            scalar_of(declared, f"source {self.name!r}, column {column!r}")

    @cached_property
    def columns(self) -> dict[str, SourceColumn]:
        """The schema's columns by name, in order."""
        where = f"source {self.name!r}"
        return {name: SourceColumn(name, *scalar_of(declared, where)) for name, declared in self.schema.items()}

    @cached_property
    def schema_version(self) -> str:
        """Changes when a column's name, type or nullability does."""
        text = ",".join(f"{c.name}:{c.dtype.__name__}{'?' * c.nullable}" for c in self.columns.values())
        return sha256(f"{self.timestamp}:{self.timestamp_format};{text}".encode()).hexdigest()[:12]


@dataclass(frozen=True)
class KafkaSource(Source):
    """JSON records of one Kafka topic (by default the topic of the source's name)."""

    topic: str = ""

    @property
    def topic_name(self) -> str:
        return self.topic or self.name


@dataclass(frozen=True)
class UploadSource(Source):
    """Parquet, CSV or NDJSON files sent over gRPC."""


@dataclass(frozen=True)
class AssetSource(Source):
    """Rows of a Dagster asset or a Parquet folder, landed like an upload when it materializes."""

    asset_key: str = ""
