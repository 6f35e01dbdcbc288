"""A test for a user's features: take away all that came later, and the past may not change."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from featurestore.definitions.project import Project
from featurestore.definitions.source import Source
from featurestore.landing.batch import from_micros
from featurestore.store import Features
from featurestore.testing.memory import MemoryStore, Record
from featurestore.training.diff import difference
from featurestore.training.spine import ArrowStream, places, read_spine

_LATE = timedelta(days=1)


def assert_no_leakage(
    project: Project,
    features: Features,
    *,
    spine: ArrowStream,
    source: Source,
    records: Sequence[Record],
    time: str = "event_timestamp",
) -> None:
    """Fail if a feature of a spine row depends on what happened, or was known, only after the row's time.

    Records arrive in the order of their times. The features of a row are read when everything up to its time has
    arrived, and again at the end: they must be the same, whether all rows count or only those known by then. And when
    every record arrives late, a read with known_at="row" must not show any.

    Raises:
        AssertionError: naming row, feature and the two values; or no row sees any record, and nothing was tested.
    """
    checked = read_spine(spine, (), time=time)
    rows, times_us = checked.table, checked.times_us
    waiting = [(_time(record, source), record) for record in records]
    store, parts = MemoryStore(project), _Parts(rows)
    nothing = store.training_set(rows, features, time=time, known_at="row").table
    for moment_us in np.unique(times_us):
        moment = from_micros(int(moment_us))
        _arrive(store, source, [(happened, record) for happened, record in waiting if happened <= moment])
        waiting = [(happened, record) for happened, record in waiting if happened > moment]
        which = np.flatnonzero(times_us == moment_us)
        parts.add(which, store.training_set(rows.take(places(which)), features, time=time).table)
    _arrive(store, source, waiting)
    then = parts.in_order()
    if not difference(nothing, then):
        raise AssertionError("no row of the spine sees a record, so nothing was tested; do their keys and times meet?")
    _same(then, store.training_set(rows, features, time=time).table, "without later records", "with them")
    known = store.training_set(rows, features, time=time, known_at="row").table
    _same(then, known, "without later records", 'with them and known_at="row"')
    late = MemoryStore(project)
    _arrive(
        late, source, [(_time(record, source), record) for record in records], after=from_micros(int(max(times_us)))
    )
    known = late.training_set(rows, features, time=time, known_at="row").table
    _same(nothing, known, "without records", 'with records that landed later and known_at="row"')


class _Parts:
    """Rows read at different moments, put back into the order of the spine."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows
        self._places: list[np.ndarray[Any, Any]] = []
        self._tables: list[pa.Table] = []

    def add(self, which: "np.ndarray[Any, Any]", table: pa.Table) -> None:
        self._places.append(which)
        self._tables.append(table)

    def in_order(self) -> pa.Table:
        return pa.concat_tables(self._tables).take(places(np.argsort(np.concatenate(self._places))))


def _arrive(
    store: MemoryStore, source: Source, records: Sequence[tuple[datetime, Record]], *, after: datetime | None = None
) -> None:
    if records:
        newest = max(happened for happened, _ in records)
        created_at = newest if after is None else max(newest, after) + _LATE
        store.send(source, *(record for _, record in records), created_at=created_at)


def _time(record: Record, source: Source) -> datetime:
    value = record.get(source.timestamp)
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise AssertionError(f"{source.timestamp} of a record of {source.name!r} is {value!r}; it is an aware datetime")
    return value.astimezone(UTC)


def _same(one: pa.Table, other: pa.Table, when: str, when_else: str) -> None:
    found = difference(one, other)
    if found:
        cell = found.cells[0]
        row = {name: one.column(name)[cell.row].as_py() for name in one.column_names if name not in found.changed}
        raise AssertionError(
            f"row {cell.row} sees what comes after it: {cell.column} is {cell.before!r} {when} and {cell.after!r} "
            f"{when_else} ({sum(found.changed.values())} cells differ){f' {row}' if row else ''}"
        )
