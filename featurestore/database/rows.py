"""Rows of a result as values of the caller's own type."""

from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC
from typing import Any, TypeVar

import pyarrow as pa

from featurestore.database.reads import with_utc
from featurestore.errors import QueryError

Row = TypeVar("Row")


def build(table: pa.Table, into: type[Row]) -> list[Row]:
    """One `into` (a dataclass) per row, columns by name; a TIMESTAMP becomes an aware UTC datetime.

    Raises:
        QueryError: the columns are not the fields of `into` (a field with a default may be absent).
    """
    if not is_dataclass(into):
        raise TypeError(f"{into} is not a dataclass; give one whose fields are the query's columns")
    names = table.column_names
    known = [one.name for one in fields(into) if one.init]
    needed = [one.name for one in fields(into) if one.init and one.default is one.default_factory is MISSING]
    if not set(needed) <= set(names) <= set(known) or len(names) != len(set(names)):
        raise QueryError(f"the query returns {', '.join(names)}; {into.__name__} has {', '.join(known)}")
    columns = [_values(column) for column in with_utc(table).columns]
    return [into(**dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]


def _values(column: pa.ChunkedArray) -> list[Any]:
    values = column.to_pylist()
    if pa.types.is_timestamp(column.type):
        return [None if value is None else value.astimezone(UTC) for value in values]
    return values
