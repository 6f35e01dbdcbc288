"""The spine: rows that say which entity and which time features are wanted for; anything that exports Arrow."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute

from featurestore.entity_id import entity_id_sql
from featurestore.errors import SpineError
from featurestore.landing.batch import to_micros
from featurestore.transform.scratch import run_sql

pc: Any = pyarrow.compute  # its stubs know lazy expressions only

Int64s = np.ndarray[tuple[int], np.dtype[np.int64]]


_FIRST_US, _LAST_US = (to_micros(datetime(year, 1, 1, tzinfo=UTC)) for year in (1000, 9999))


class ArrowStream(Protocol):
    """Whatever exports Arrow: pyarrow, polars, pandas, DuckDB, our own results."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


@dataclass(frozen=True, slots=True)
class Entities:
    """Which entity each row of the spine is about: a number per row, and the id behind each number."""

    ids: pa.Array
    codes: Int64s


@dataclass(frozen=True, slots=True)
class Spine:
    """A checked spine: its own columns untouched, the time of each row in whole microseconds."""

    table: pa.Table
    times_us: Int64s  # rounded down: a row between two microseconds does not see the later one
    entities: dict[tuple[str, ...], Entities] = field(default_factory=dict[tuple[str, ...], Entities])

    @property
    def rows(self) -> int:
        return self.table.num_rows


def read_spine(
    stream: ArrowStream,
    keys: Sequence[tuple[str, ...]],
    *,
    time: str = "event_timestamp",
    time_zone: str | None = None,
) -> Spine:
    """Take the rows, their times and the entities that the key columns in `keys` identify.

    Raises:
        SpineError: a column is missing, twice or of a wrong type, a key or time is missing, or a time has no zone and
            `time_zone` does not give one; the message names column and row.
    """
    table = _table(stream)
    for column in (time, *(column for key in keys for column in key)):
        if column not in table.column_names:
            hint = '; time="…" names the column of its times' if column == time else ""
            raise SpineError(f"the spine has no column {column!r}; it has {', '.join(table.column_names)}{hint}")
        if table.column_names.count(column) > 1:
            raise SpineError(f"the spine has column {column!r} twice")
    times_us = _times(table.column(time), time, time_zone)
    absurd = np.flatnonzero((times_us < _FIRST_US) | (times_us >= _LAST_US))
    if len(absurd):
        raise SpineError(f"row {absurd[0]}: {time} is not between the years 1000 and 9999")
    return Spine(table, times_us, {key: _entities(table, key) for key in keys})


def _table(stream: ArrowStream) -> pa.Table:
    if not hasattr(stream, "__arrow_c_stream__"):
        raise SpineError(
            f"a spine is anything that exports an Arrow stream (a table or data frame), not {type(stream)}"
        )
    return _without_views(pa.table(cast(Any, stream)))


def _without_views(table: pa.Table) -> pa.Table:
    """Text and bytes in Arrow's usual layout; few functions know the newer one, which polars exports."""
    usual = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    fields = [one.with_type(usual.get(one.type, one.type)) for one in table.schema]
    return table.cast(pa.schema(fields))


def _times(column: pa.ChunkedArray, name: str, time_zone: str | None) -> Int64s:
    dtype = column.type
    if not len(column):  # and so perhaps without a type
        return np.empty(0, np.int64)
    if not pa.types.is_timestamp(dtype):
        raise SpineError(f"column {name!r} is {dtype}; the time of a row is a timestamp")
    if column.null_count:
        raise SpineError(f"row {_first(pc.is_null(column))}: {name} is missing")
    if dtype.tz is None:
        column = _zoned(column, name, time_zone)
    if dtype.unit == "ns":
        return column.cast(pa.int64()).to_numpy() // 1000  # the floor, before 1970 too
    try:
        return column.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise SpineError(f"{name}: {error}") from error


def _zoned(column: pa.ChunkedArray, name: str, time_zone: str | None) -> pa.ChunkedArray:
    """Naive times as those of `time_zone`."""
    if time_zone is None:
        raise SpineError(f'row 0: {name} has no time zone; use an aware time, or say time_zone="Europe/Berlin"')
    try:
        return pc.assume_timezone(column, time_zone)
    except pa.ArrowInvalid as error:
        raise SpineError(_why_not_local(column, name, time_zone) or f"{name}: {error}") from error


def _why_not_local(column: pa.ChunkedArray, name: str, time_zone: str) -> str:
    """Find the row whose time its zone skips or has twice, where the clocks are set."""
    for what, options in (
        ("does not exist", {"nonexistent": ("earliest", "latest"), "ambiguous": ("earliest", "earliest")}),
        ("happened twice", {"nonexistent": ("earliest", "earliest"), "ambiguous": ("earliest", "latest")}),
    ):
        try:
            one, other = (
                pc.assume_timezone(column, time_zone, **{word: choice[at] for word, choice in options.items()})
                for at in (0, 1)
            )
        except pa.ArrowInvalid:  # no such zone
            return ""
        differing = pc.not_equal(one, other)
        if pc.any(differing).as_py():
            row = _first(differing)
            return f"row {row}: {name} {column[row].as_py()} {what} in {time_zone}; use an aware time"
    return ""


def _entities(table: pa.Table, key: tuple[str, ...]) -> Entities:
    columns = {name: _key_column(table.column(name), name) for name in key}
    if len(key) == 1:
        ids = columns[key[0]].cast(pa.string())  # what SQL's cast does, without a database
    else:
        sql = f"SELECT {entity_id_sql(key)} AS entity_id FROM spine"
        ids = run_sql(sql, name="spine", table=pa.Table.from_pydict(columns)).column("entity_id")
    encoded = cast(pa.DictionaryArray, ids.combine_chunks().dictionary_encode())
    return Entities(encoded.dictionary.cast(pa.string()), encoded.indices.to_numpy().astype(np.int64))


def _key_column(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    dtype = column.type
    if pa.types.is_dictionary(dtype):
        column = column.cast(dtype.value_type)
        dtype = column.type
    if column.null_count:
        raise SpineError(f"row {_first(pc.is_null(column))}: key {name!r} is missing")
    if pa.types.is_integer(dtype):
        return column
    if pa.types.is_null(dtype):  # of an empty spine
        return column.cast(pa.string())
    if not (pa.types.is_string(dtype) or pa.types.is_large_string(dtype)):
        raise SpineError(f"key column {name!r} is {dtype}; a key is text or a whole number")
    empty = pc.equal(column, "")
    if pc.any(empty).as_py():
        raise SpineError(f"row {_first(empty)}: key {name!r} is an empty text")
    return column


def _first(mask: pa.ChunkedArray) -> int:
    return pc.index(mask, pa.scalar(True)).as_py()


def places(rows: Int64s, absent: Any = None) -> Any:
    """Positions as `take` wants them; where `absent`, it gives NULL."""
    return pa.array(rows, pa.int64(), mask=absent)
