"""Parquet files → pieces of rows."""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from featurestore.definitions.long_form import LONG_FORM, is_long_form
from featurestore.landing.columns import Door, Rejection, refused, short, without
from featurestore.landing.dead_letters import DeadLetter
from featurestore.landing.schema import landed_schema, sequences
from ingest.grpc.conversions import Converter, converter, is_text
from ingest.grpc.pages import check_pages
from ingest.grpc.pieces import FileRefusedError, Piece, check_columns, pieces_of_lines
from ingest.long_form import Line, cells_line

pc: Any = pyarrow.compute  # the stubs do not know that kernels take scalars too

_PIECE_ROWS = 16_384
_PIECE_BYTES = 32 << 20  # of text: a dictionary can make gigabytes out of a small file
_READ_BYTES = 1 << 20
_UNPACKED_BYTES, _UNPACKED_RATIO = 256 << 20, 200  # above them it is made to exhaust its reader
_VALUE_BYTES = 8


def read_parquet(path: Path, door: Door, now: Callable[[], datetime]) -> Iterator[Piece]:
    """A file whose columns are found by name, with types that fit the source's."""
    try:
        with pq.ParquetFile(path) as plain:
            is_long = is_long_form(plain.schema_arrow.names)
            texts = _inspect(plain, door, path)
            if not is_long:
                check_columns(list(plain.schema_arrow.names), door)
        with pq.ParquetFile(
            path, read_dictionary=texts, pre_buffer=False, buffer_size=_READ_BYTES, page_checksum_verification=True
        ) as file:
            if is_long:
                yield from pieces_of_lines(_long_lines(file), door, now, path.parent)
                return
            reader = _Reader(file.schema_arrow, door)
            for batch in file.iter_batches(_PIECE_ROWS, columns=reader.columns):
                for part in _bounded(batch):
                    yield reader.piece(part, now())
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FileRefusedError(f"not a whole Parquet file: {error}") from error


def _inspect(file: pq.ParquetFile, door: Door, path: Path) -> list[str]:
    """Refuse what is too large when it is unpacked; return the columns of text."""
    read = {*LONG_FORM, *door.source.times, *door.source.columns} & set(file.schema_arrow.names)
    size_bytes = path.stat().st_size
    unpacked_bytes = file.metadata.num_rows * len(read) * _VALUE_BYTES
    if unpacked_bytes > _UNPACKED_BYTES + _UNPACKED_RATIO * size_bytes:
        raise FileRefusedError(
            f"its {file.metadata.num_rows} rows are over {_UNPACKED_RATIO} times as large as the file; cut it in pieces"
        )
    with path.open("rb") as opened:
        check_pages(opened, read)
    return [field.name for field in file.schema_arrow if is_text(field.type)]


def _bounded(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in slices whose text fits in memory when it is spelt out."""
    size = 0
    for column in batch.columns:
        if isinstance(column, pa.DictionaryArray):
            size += pc.sum(pc.binary_length(column.dictionary).take(column.indices)).as_py() or 0
    if size <= _PIECE_BYTES or batch.num_rows == 1:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _bounded(batch.slice(0, half))
    yield from _bounded(batch.slice(half))


def _long_lines(file: pq.ParquetFile) -> Iterator[tuple[bytes, Line | str]]:
    for large in file.iter_batches(_PIECE_ROWS, columns=list(LONG_FORM)):
        for batch in _bounded(large):
            for row in range(batch.num_rows):
                cells = _cells(batch, row)
                raw, value = _raw(cells), cells["value"]
                if isinstance(value, float) and not isfinite(value):
                    cells["value"] = str(value)  # JSON has none; as text it is refused as what it is
                elif not isinstance(value, str):
                    cells["value"] = msgspec.Raw(msgspec.json.encode(value))
                yield raw, cells_line(**cells)


class _Reader:
    """Makes pieces of the batches of one file."""

    def __init__(self, schema: pa.Schema, door: Door) -> None:
        source = door.source
        self._door, self._schema = door, landed_schema(source)
        self._converters: dict[str, Converter] = {}
        optional = {source.created_at} | {column.name for column in source.columns.values() if column.nullable}
        for name in (*source.times, *source.columns):
            if name not in schema.names:
                continue
            kind = schema.field(name).type
            # A column without any value has no type of its own: where it may be missing, it is.
            if not (pa.types.is_null(kind) and name in optional):
                self._converters[name] = converter(source, name, kind)
        self._names = [*source.times, *source.columns]  # in the order of the landed schema
        self._undeclared = sum(name not in self._names for name in schema.names)
        self._row = 0

    @property
    def columns(self) -> list[str]:
        return list(self._converters)

    def piece(self, batch: pa.RecordBatch, now: datetime) -> Piece:
        first_row, count = self._row, batch.num_rows
        self._row += count
        found: dict[int, Rejection] = {}
        columns: dict[str, pa.Array] = {}
        for name, convert in self._converters.items():
            columns[name], bad = convert(batch.column(name))
            for row, what in bad.items():
                found.setdefault(row, Rejection(row, short(f"{name}: {what}")))
        arrays: list[Any] = [sequences(first_row, first_row + count)]
        for name, field in zip(self._names, list(self._schema)[1:], strict=True):
            arrays.append(columns.get(name, pa.nulls(count, field.type)))
        table = pa.Table.from_arrays(arrays, schema=self._schema)
        for one in refused(table, self._door, now):
            found.setdefault(one.row, one)
        return Piece(
            first_row=first_row,
            end_row=first_row + count,
            rows=without(table, found),
            dead=[DeadLetter(first_row + row, found[row].reason, _raw(_cells(batch, row))) for row in sorted(found)],
            future=sum(one.future for one in found.values()),
            unknown_members=self._undeclared * count,
        )


def _cells(batch: pa.RecordBatch, row: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in batch.schema.names:
        try:
            value = batch.column(name)[row]
            if pa.types.is_timestamp(value.type) and value.type.unit == "ns":  # Python has no nanoseconds
                value = value.cast(pa.timestamp("us", value.type.tz), safe=False)
            values[name] = value.as_py()
        except (ValueError, OverflowError):  # not text, or a time that Python does not have
            values[name] = "(not readable)"
    return values


def _raw(cells: Mapping[str, object]) -> bytes:
    """A row as JSON, for somebody to read."""
    return json.dumps(cells, default=str).encode()
