"""A landed file as a value."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def to_micros(time: datetime) -> int:
    """Microseconds since 1970 of an aware time."""
    return (time - EPOCH) // MICROSECOND


def from_micros(micros: int) -> datetime:
    return EPOCH + timedelta(microseconds=micros)


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One landed file, as it landed: of its rows, some may have been erased since.

    `batch_id` is its path below the landing root, for ever; `digest` is that of the file that landed.
    """

    batch_id: str
    source: str
    start: int  # Kafka: offsets [start, end); part of an upload: row numbers of the original file
    end: int
    rows: int
    dead_rows: int = 0
    absent_rows: int = 0  # offsets without a record: compaction, markers, lost to retention
    created_at: datetime
    min_event_timestamp: datetime | None = None
    max_event_timestamp: datetime | None = None
    schema_version: str
    digest: str
    bytes: int
    dead_letters: str = ""  # name of the file of dead letters beside it
    origin: str = ""  # of dead letters that were replayed: the batch that they came with

    @property
    def chain(self) -> str:
        """The directory whose files follow one another."""
        return str(PurePosixPath(self.batch_id).parent)

    @property
    def hour(self) -> datetime:
        """The partition: the hour it landed."""
        return self.created_at.replace(minute=0, second=0, microsecond=0)

    def to_metadata(self) -> dict[str, Any]:
        """What the file says of itself (`batch_id` and size follow from where it lies; the digest is put in last)."""
        return {
            "source": self.source,
            "start": self.start,
            "end": self.end,
            "rows": self.rows,
            "dead_rows": self.dead_rows,
            "absent_rows": self.absent_rows,
            "created_at": to_micros(self.created_at),
            "min_event_timestamp": None if self.min_event_timestamp is None else to_micros(self.min_event_timestamp),
            "max_event_timestamp": None if self.max_event_timestamp is None else to_micros(self.max_event_timestamp),
            "schema_version": self.schema_version,
            "dead_letters": self.dead_letters,
            "origin": self.origin,
        }

    @classmethod
    def from_metadata(cls, batch_id: str, metadata: Mapping[str, Any], *, size_bytes: int) -> "Batch":
        times = {
            name: None if metadata[name] is None else from_micros(metadata[name])
            for name in ("min_event_timestamp", "max_event_timestamp")
        }
        plain = (
            "source",
            "start",
            "end",
            "rows",
            "dead_rows",
            "absent_rows",
            "schema_version",
            "dead_letters",
            "origin",
        )
        return cls(
            batch_id=batch_id,
            created_at=from_micros(metadata["created_at"]),
            digest=metadata["replaces"],
            bytes=size_bytes,
            **times,
            **{name: metadata[name] for name in plain},
        )
