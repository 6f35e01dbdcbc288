"""The columns of landed rows."""

from datetime import datetime

import pyarrow as pa

from featurestore.definitions.dtypes import arrow_type
from featurestore.definitions.source import Source
from featurestore.landing.batch import from_micros

TIMESTAMP = pa.timestamp("us")  # microseconds, UTC; without a zone, because DuckDB's TIMESTAMP has none


def landed_schema(source: Source) -> pa.Schema:
    """Columns of a landed file: the position in the source, the event's time, then the declared columns.

    Where rows bring their own `created_at` it stands after the time; null where it is the landing time.
    """
    head = [pa.field("sequence", pa.int64(), nullable=False), pa.field("event_timestamp", TIMESTAMP, nullable=False)]
    if source.created_at:
        head.append(pa.field("created_at", TIMESTAMP))
    return pa.schema(
        head + [pa.field(c.name, arrow_type(c.dtype), nullable=c.nullable) for c in source.columns.values()]
    )


def sequences(start: int, end: int) -> pa.Array:
    """The numbers of consecutive rows, [start, end)."""
    return pa.arange(start, end)  # pyright: ignore[reportAttributeAccessIssue]  # the stubs do not know it


def time_range(table: pa.Table) -> tuple[datetime | None, datetime | None]:
    """The smallest and largest event time of landed rows."""
    if table.num_rows == 0:
        return None, None
    micros = table["event_timestamp"].cast(pa.int64()).to_numpy()
    return from_micros(int(micros.min())), from_micros(int(micros.max()))
