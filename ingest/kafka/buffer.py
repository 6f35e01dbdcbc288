"""The records of one partition between Kafka and the landing zone."""

from dataclasses import dataclass, field
from typing import cast

import pyarrow as pa
from confluent_kafka import Message

from featurestore.landing.dead_letters import DeadLetter
from featurestore.settings import IngestSettings
from ingest.records import Decoded


@dataclass(frozen=True, slots=True)
class Records:
    """Consecutive records of one partition, as three lists: offsets grow, with gaps where Kafka has none."""

    offsets: list[int]
    values: list[bytes | None]
    keys: list[bytes | None]

    @classmethod
    def of(cls, messages: list[Message]) -> "Records":
        return cls(
            cast("list[int]", list(map(Message.offset, messages))),  # records have offsets, events have none
            list(map(Message.value, messages)),
            list(map(Message.key, messages)),
        )

    def since(self, offset: int) -> "Records":
        """Without what comes before `offset`."""
        if not self.offsets or self.offsets[0] >= offset:
            return self
        first = next((i for i, one in enumerate(self.offsets) if one >= offset), len(self.offsets))
        return Records(self.offsets[first:], self.values[first:], self.keys[first:])


@dataclass(slots=True)
class Buffer:
    """Rows and dead letters of the offsets [start, end); bounded by being landed when it is due."""

    start: int
    schema: pa.Schema
    end: int = field(init=False)
    dead: list[DeadLetter] = field(init=False, default_factory=list[DeadLetter])
    rows: int = field(init=False, default=0)
    future: int = field(init=False, default=0)
    size_bytes: int = field(init=False, default=0)
    since: float = field(init=False, default=0.0)  # when the oldest record came; monotonic seconds
    _tables: list[pa.Table] = field(init=False, default_factory=list[pa.Table])

    def __post_init__(self) -> None:
        self.end = self.start

    @property
    def empty(self) -> bool:
        return self.end == self.start

    @property
    def records(self) -> int:
        return self.rows + len(self.dead)

    @property
    def absent_rows(self) -> int:
        """Offsets without a record: compacted away, or a transaction's marker."""
        return self.end - self.start - self.records

    def add(self, records: Records, decoded: Decoded, since: float) -> None:
        """Take records that follow the ones that are here; `since` is when they may have come at the earliest."""
        if self.empty:
            self.since = since
        self._tables.append(decoded.rows)
        self.rows += decoded.rows.num_rows
        self.size_bytes += sum(map(len, filter(None, records.values)))
        for one in decoded.rejections:
            self.dead.append(
                DeadLetter(
                    sequence=records.offsets[one.row],
                    reason=one.reason,
                    raw=records.values[one.row] or b"",
                    key=records.keys[one.row],
                )
            )
            self.future += one.future
        self.end = records.offsets[-1] + 1

    def due_at(self, settings: IngestSettings) -> float:
        """When to land it, in monotonic seconds: at once at the bound of rows or bytes, else at the batch age."""
        full = self.records >= settings.batch_rows or self.size_bytes >= settings.batch_bytes
        return 0.0 if full else self.since + settings.batch_age_s

    def table(self) -> pa.Table:
        return pa.concat_tables(self._tables) if self._tables else self.schema.empty_table()
