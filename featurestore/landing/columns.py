"""What a value keeps to, whatever record or file brought it: times, numbers, texts and keys, checked by column."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any

import pyarrow as pa
import pyarrow.compute

from featurestore.definitions.long_form import LongForm
from featurestore.definitions.project import Project
from featurestore.definitions.source import Source
from featurestore.landing.batch import from_micros, to_micros
from featurestore.landing.schema import sequences

pc: Any = pyarrow.compute  # the stubs do not know that kernels take scalars too

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
FUTURE = timedelta(minutes=5)  # an event further ahead has a wrong clock somewhere

# From this share of the records on, and this many, the wrong clock is the own one.
_FUTURE_SHARE, _FUTURE_ROWS = 0.5, 20
_REASON_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that cannot be landed; `row` is its place among those that were given."""

    row: int
    reason: str
    future: bool = False


@dataclass(frozen=True, slots=True)
class Door:
    """What a source lets in: its declaration, and what the entities of its views ask of their keys."""

    source: Source
    key_columns: frozenset[str] = frozenset()
    message_key: tuple[str, ...] = ()  # the columns whose text a Kafka key must be; () = any key will do
    long_form: LongForm = field(default_factory=lambda: LongForm(""))  # the cells that lines of the long form fill

    @classmethod
    def of(cls, source: Source, project: Project) -> "Door":
        keys = {view.entity.key_columns for view in project.views_of(source)}
        return cls(
            source,
            key_columns=frozenset(column for key in keys for column in key),
            message_key=next(iter(keys)) if len(keys) == 1 else (),
            long_form=LongForm.of(source, project),
        )


def short(reason: str) -> str:
    """Reasons quote names and values of strangers: bounded, printable, on one line."""
    line = "".join(character if character.isprintable() else "?" for character in reason[:_REASON_CHARACTERS])
    return line if len(reason) <= _REASON_CHARACTERS else f"{line[:-1]}…"


def clock_is_wrong(future: int, records: int) -> bool:
    """Whether so many of the records are "future" that the own clock must be the one that is wrong."""
    return future >= _FUTURE_ROWS and future > _FUTURE_SHARE * records


def refused(table: pa.Table, door: Door, now: datetime) -> list[Rejection]:
    """The rows of a table in the landed schema that must not be landed, in order, each with its first reason."""
    found: dict[int, Rejection] = {}
    times = (
        *_times(table["event_timestamp"], door.source.timestamp, now),
        *_created(table, door.source.created_at, now),
    )
    for rejection in (*times, *_values(table, door)):
        found.setdefault(rejection.row, rejection)
    return sorted(found.values(), key=lambda rejection: rejection.row)


def without(table: pa.Table, rows: Iterable[int]) -> pa.Table:
    """The other rows, in order."""
    gone = pa.array(rows, pa.int64())
    if not len(gone):
        return table
    return table.filter(pc.invert(pc.is_in(sequences(0, table.num_rows), gone)))


def _times(column: Any, name: str, now: datetime) -> Iterator[Rejection]:
    micros = pc.cast(column, pa.int64())
    if column.null_count:
        yield from _rejections(pc.is_null(micros), micros, f"{name}: missing")
    range_of = pc.min_max(micros).as_py()  # most often all is well, and known from this alone
    limit = min(to_micros(now + FUTURE) + 1, to_micros(LATEST))
    if range_of["min"] is None or to_micros(EARLIEST) <= range_of["min"] <= range_of["max"] < limit:
        return
    absurd = pc.or_(pc.less(micros, to_micros(EARLIEST)), pc.greater_equal(micros, to_micros(LATEST)))
    yield from _rejections(absurd, micros, lambda value: f"{name}: {_time(value)} is not between 1970 and 2199")
    future = pc.greater_equal(micros, limit)
    for one in _rejections(future, micros, lambda value: f"{name}: {_time(value)} is more than 5 min in the future"):
        yield Rejection(one.row, one.reason, future=True)


def _created(table: pa.Table, name: str, now: datetime) -> Iterator[Rejection]:
    """What was known only after it landed, or before there were computers."""
    if name:
        micros = pc.cast(table["created_at"], pa.int64())
        wrong = pc.or_(pc.less(micros, to_micros(EARLIEST)), pc.greater(micros, to_micros(now)))
        yield from _rejections(
            pc.fill_null(wrong, False),
            micros,
            lambda value: f"{name}: {_time(value)} is not between 1970 and its landing",
        )


def _time(micros: int) -> str:
    try:
        return from_micros(micros).isoformat().replace("+00:00", "Z")
    except OverflowError:
        return f"{micros} µs"


def _values(table: pa.Table, door: Door) -> Iterator[Rejection]:
    for one in door.source.columns.values():
        column = table[one.name]
        if column.null_count and not one.nullable:
            yield from _rejections(pc.is_null(column), column, f"{one.name}: missing")
        if one.dtype is float and not isfinite(pc.sum(column, min_count=0).as_py()):
            yield from _rejections(pc.invert(pc.is_finite(column)), column, f"{one.name}: not a finite number")
        elif one.dtype is str:
            yield from _rejections(pc.match_substring(column, "\0"), column, f"{one.name}: holds a NUL character")
            if one.name in door.key_columns:
                yield from _rejections(pc.equal(column, ""), column, f"{one.name}: empty")


def _rejections(mask: pa.Array, column: Any, reason: str | Callable[[Any], str]) -> Iterator[Rejection]:
    """One for each row where the mask is true."""
    if pc.any(mask).as_py():
        for row in pc.indices_nonzero(mask).to_pylist():
            text = reason if isinstance(reason, str) else reason(column[row].as_py())
            yield Rejection(row, short(text))
