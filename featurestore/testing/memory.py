"""A whole store in one object, for tests: records go in, features come out, through the product's own code."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

import pyarrow as pa

from featurestore.apply import apply_batches
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.definitions.listed import shown
from featurestore.definitions.project import Project
from featurestore.definitions.source import Source, SourceColumn
from featurestore.errors import TerminalError
from featurestore.landing.batch import Batch
from featurestore.landing.schema import landed_schema, time_range
from featurestore.landing.zone import LandingZone
from featurestore.offline.log import Ledger
from featurestore.offline.tables import schema_job
from featurestore.online.memory import MemoryOnlineStore
from featurestore.store import Store
from featurestore.transform.binding import bind
from featurestore.versions import activate_complete, several

Scalar = str | int | float | bool | datetime | None
Record = Mapping[str, Scalar]

_FUTURE = timedelta(minutes=5)  # further ahead, a record is refused at the door
_MICROSECOND = timedelta(microseconds=1)


class MemoryStore(Store):
    """A store with nothing in it, gone with the object. What is sent is landed, transformed, logged and online at once.

    Raises:
        DefinitionError: the SQL of a view does not fit its source.
    """

    def __init__(self, project: Project) -> None:
        bind(project)
        self._zone = _Landed()
        self._values = MemoryOnlineStore()
        super().__init__(project, EmbeddedDatabase(), self._values)
        self._ledger = Ledger()
        self.database.ensure(schema_job(project))
        self._activate_complete()

    def send(self, source: Source, *records: Record, created_at: datetime | None = None) -> None:
        """Land `records` as one batch and apply it to every view of `source`.

        `created_at` is when they are known: by default now, or the time of the newest record if that is later. Batches
        may be sent with any times, in any order.

        Raises:
            TerminalError: a record is not what the source declares (a daemon would make it a dead letter), or a view
                fails on it.
        """
        if not isinstance(cast(object, source), Source):
            raise TerminalError(f"{shown(source)} is no source; give the one that is declared")
        declared = self.project.source(source.name)
        batch = self._zone.land(declared, records, created_at)
        for view in self.project.views_of(declared):
            apply_batches(view, [batch], cast(LandingZone, self._zone), self.database, self._values)
        self._activate_complete()

    def _activate_complete(self) -> None:
        if several(self.project):  # others have nothing to choose, and a test should not wait for it
            self._ledger.refresh(self.database)
            activate_complete(self.project, self._ledger, self.database, self._values)


class _Landed:
    """Landed batches, in memory: as much of a LandingZone as applying them needs."""

    def __init__(self) -> None:
        self._tables: dict[str, pa.Table] = {}
        self._rows: Counter[str] = Counter()  # of each source
        self._latest = datetime.min.replace(tzinfo=UTC)

    def land(self, source: Source, records: Sequence[Record], created_at: datetime | None) -> Batch:
        start = self._rows[source.name]
        table = _table(source, records, start)
        first, last = time_range(table)
        if created_at is None:
            # Never the same twice, so that of two batches sent one after the other the second is the correction.
            created_at = max(datetime.now(UTC), last or self._latest, self._latest + _MICROSECOND)
            self._latest = created_at
        if last is not None and last > created_at + _FUTURE:
            raise TerminalError(
                f"source {source.name!r}: a record of {last} lands long before it happens, at {created_at}"
            )
        batch = Batch(
            batch_id=f"{source.name}/memory/{len(self._tables):020d}.parquet",
            source=source.name,
            start=start,
            end=start + table.num_rows,
            rows=table.num_rows,
            created_at=created_at,
            min_event_timestamp=first,
            max_event_timestamp=last,
            schema_version=source.schema_version,
            digest="",
            bytes=table.nbytes,
        )
        self._tables[batch.batch_id] = table
        self._rows[source.name] = batch.end
        return batch

    def read(self, batch: Batch) -> pa.Table:
        return self._tables[batch.batch_id]


def _table(source: Source, records: Sequence[Record], start: int) -> pa.Table:
    """Rows as a daemon would land them; what is sent later has the higher sequence."""
    rows = [{"sequence": start + number, **_row(source, number, one)} for number, one in enumerate(records)]
    return pa.Table.from_pylist(rows, landed_schema(source))


def _row(source: Source, number: int, record: Record) -> dict[str, object]:
    where = f"source {source.name!r}, record {number}"
    if not isinstance(cast(object, record), Mapping):
        raise TerminalError(f"{where} is {shown(record)}, not a mapping; of a list: send(SOURCE, *records)")
    unknown = sorted(record.keys() - source.columns.keys() - source.times.keys())
    if unknown:
        columns = ", ".join([*source.times, *source.columns])
        raise TerminalError(f"{where}: there is no column {unknown[0]!r}; it has {columns}")
    times = {
        landed: _time(record.get(name), f"{where}: {name}")
        for name, landed in source.times.items()
        if name == source.timestamp or record.get(name) is not None
    }
    values = {name: _value(column, record.get(name), where) for name, column in source.columns.items()}
    return {**times, **values}


def _time(value: object, where: str) -> datetime:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise TerminalError(f"{where} is {value!r}; it is an aware datetime")
    return value.astimezone(UTC).replace(tzinfo=None)


def _value(column: SourceColumn, value: Scalar, where: str) -> Scalar:
    if value is None:
        if column.nullable:
            return None
        raise TerminalError(f"{where}: {column.name} is missing; declare `{column.dtype.__name__} | None` if it may be")
    whole_for_float = column.dtype is float and type(value) is int
    if type(value) is not column.dtype and not whole_for_float:
        raise TerminalError(f"{where}: {column.name} is {value!r}; it is declared as {column.dtype.__name__}")
    return value
