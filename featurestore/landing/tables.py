"""A table in memory, landed like an uploaded file."""

from collections.abc import Callable
from datetime import datetime
from hashlib import sha256

import msgspec
import pyarrow as pa

from featurestore.definitions.source import Source
from featurestore.errors import TerminalError
from featurestore.landing.batch import utc_now
from featurestore.landing.columns import Door, clock_is_wrong, refused, without
from featurestore.landing.dead_letters import DeadLetter
from featurestore.landing.schema import landed_schema, sequences
from featurestore.landing.uploads import Manifest
from featurestore.landing.zone import LandingZone

PART_ROWS = 1_000_000


def land_table(
    zone: LandingZone, door: Door, upload_id: str, rows: pa.Table, *, now: Callable[[], datetime] = utc_now
) -> Manifest:
    """Land the rows under `upload_id`, once for ever; a row that its source refuses becomes a dead letter.

    Raises:
        TerminalError: a column is missing or of another type, or the own clock is behind; nothing is landed.
        NoSpaceError: the disk is full; nothing became visible.
    """
    upload, at = zone.open_upload(door.source.name, upload_id), now()
    if (done := upload.manifest()) is not None:
        return done
    table = _landed(door.source, rows)
    rejections = refused(table, door, at)
    if clock_is_wrong(sum(one.future for one in rejections), table.num_rows):
        raise TerminalError(f"source {door.source.name!r}: most rows are in the future; is this machine's clock right?")
    for start in range(0, table.num_rows, PART_ROWS):
        part = table.slice(start, PART_ROWS)
        bad = [one.row - start for one in rejections if start <= one.row < start + PART_ROWS]
        upload.write_part(without(part, bad), first_row=start, end_row=start + part.num_rows)
    dead = [
        DeadLetter(one.row, one.reason, msgspec.json.encode(rows.slice(one.row, 1).to_pylist()[0]))
        for one in rejections
    ]
    manifest = upload.publish(
        sha256=sha256(upload_id.encode()).hexdigest(),
        size_bytes=rows.nbytes,
        schema=table.schema,
        schema_version=door.source.schema_version,
        dead=dead,
        now=now,
    )
    upload.sweep(manifest)  # of what a killed process left
    return manifest


def _landed(source: Source, rows: pa.Table) -> pa.Table:
    """The rows in the landed schema; types may differ in width and unit, as long as every value fits."""
    nullable = {one.name for one in source.columns.values() if one.nullable}
    columns: dict[str, pa.Array | pa.ChunkedArray] = {"sequence": sequences(0, rows.num_rows)}
    schema = landed_schema(source)
    for name, field in zip([*source.times, *source.columns], list(schema)[1:], strict=True):
        if name not in rows.column_names:
            if name not in nullable:
                raise TerminalError(f"source {source.name!r}: column {name!r} is missing; there is {rows.column_names}")
            columns[field.name] = pa.nulls(rows.num_rows, field.type)
            continue
        columns[field.name] = _cast(source, name, rows[name], field.type)
    return pa.Table.from_pydict(columns).cast(pa.schema([field.with_nullable(True) for field in schema]))


def _cast(source: Source, name: str, column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    is_naive = pa.types.is_timestamp(column.type) and column.type.tz is None
    if name in source.times and is_naive:
        raise TerminalError(f"source {source.name!r}: {name} has no time zone; give aware times")
    try:
        return column.cast(pa.timestamp("us", "UTC")).cast(wanted) if name in source.times else column.cast(wanted)
    except pa.ArrowException as error:
        raise TerminalError(
            f"source {source.name!r}: {name} is {column.type}, and not all of it {wanted}: {error}"
        ) from error
