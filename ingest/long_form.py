"""Lines of the long form → JSON records of a source: the lines of one key and time are one row, wherever they stand."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.definitions.long_form import Cell, is_long_form, key_of
from featurestore.errors import TerminalError
from featurestore.landing.batch import from_micros, to_micros
from featurestore.landing.columns import Door
from ingest.cells import cell_json
from ingest.reasons import RepeatedError, reason
from ingest.records import MICROS, RECORD_BYTES, Rfc3339, unrepeated

_BUFFERED_LINES = 65_536
_FETCHED_RECORDS = 8_192
_MEMORY = "64MB"  # of grouping; what does not fit goes to the disk
_SCHEMA = pa.schema([("line", pa.int64()), ("key", pa.string()), ("micros", pa.int64()), ("member", pa.string())])
_GROUPS = """
    SELECT min(line) AS line, key, micros, string_agg(member, ',' ORDER BY line) AS members
    FROM read_parquet($path) GROUP BY key, micros ORDER BY line
"""
_ERRORS = (msgspec.MsgspecError, RepeatedError, UnicodeError, RecursionError)


class Line(msgspec.Struct, frozen=True):
    """One line; its value is JSON, or, where the format knows only text, the text of a cell."""

    entity_id: str | int
    feature_name: str
    event_timestamp: Rfc3339
    value: msgspec.Raw | str = msgspec.Raw(b"null")


class _JsonLine(Line, frozen=True):
    value: msgspec.Raw = msgspec.Raw(b"null")


@dataclass(frozen=True, slots=True)
class Record:
    """A row of the source as JSON, and the number of its first line."""

    line: int
    json: bytes


def are_lines(texts: Iterable[bytes]) -> bool:
    """Whether JSON records are lines of the long form: the first one that can be read tells."""
    for text in texts:
        try:
            return is_long_form(msgspec.json.decode(text, type=dict[str, msgspec.Raw]))
        except _ERRORS:
            continue
    return False


def parse_line(text: bytes) -> Line | str:
    """A line of JSON, or why it is none."""
    if len(text) > RECORD_BYTES:
        return f"larger than {RECORD_BYTES} bytes"
    try:
        line = msgspec.json.decode(text, type=_JsonLine)
        unrepeated(text)
    except _ERRORS as error:
        return reason(error)
    return line


def cells_line(
    entity_id: object, feature_name: object, value: msgspec.Raw | str, event_timestamp: object
) -> Line | str:
    """A line of the cells of a table, or why it is none."""
    plain = {"entity_id": entity_id, "feature_name": feature_name, "event_timestamp": event_timestamp}
    try:
        return msgspec.structs.replace(msgspec.convert(plain, Line), value=value)
    except _ERRORS as error:
        return reason(error)


class Pivot:
    """Takes lines, then gives the records that they make. Memory is bounded: lines are kept in `directory`.

    A row that lacks a column is a record without that member: the source's decoder refuses it like any other.
    """

    def __init__(self, door: Door, directory: Path) -> None:
        self._timestamp, self._format = door.source.timestamp, door.source.timestamp_format
        self._long_form = door.long_form
        self._path = directory / "lines.parquet"
        self._writer = pq.ParquetWriter(self._path, _SCHEMA, compression="zstd", compression_level=1)
        self._lines: list[tuple[int, str, int, str | None]] = []

    def add(self, number: int, line: Line) -> str:
        """Take a line, or say why it is no cell of a row of the source."""
        try:
            cell = self._long_form.cell(line.feature_name)
            key = msgspec.json.encode(key_of(cell, str(line.entity_id)))[1:-1].decode()
            value = _value(line.value, cell).decode()
        except (TerminalError, UnicodeError) as error:
            return "not valid UTF-8" if isinstance(error, UnicodeError) else str(error)
        member = None if value == "null" else f'"{cell.column}":{value}'
        self._lines.append((number, key, to_micros(line.event_timestamp), member))
        if len(self._lines) >= _BUFFERED_LINES:
            self._flush()
        return ""

    def records(self) -> Iterator[Record]:
        """Every row of the source that the lines make, by its first line."""
        self._flush()
        self.close()
        config: dict[str, Any] = {"memory_limit": _MEMORY, "threads": 1, "temp_directory": str(self._path.parent)}
        with duckdb.connect(":memory:", config=config) as connection:
            groups = connection.sql(_GROUPS, params={"path": str(self._path)}).to_arrow_reader(_FETCHED_RECORDS)
            for batch in groups:
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    yield self._record(*row)

    def close(self) -> None:
        self._writer.close()

    def _record(self, line: int, key: str, micros: int, members: str | None) -> Record:
        time = f'"{self._timestamp}":{_time(micros, self._format)}'
        return Record(line, f"{{{','.join(filter(None, (key, time, members)))}}}".encode())

    def _flush(self) -> None:
        columns: Any = zip(*self._lines, strict=True) if self._lines else [[] for _ in _SCHEMA]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=_SCHEMA))
        self._lines = []


def _value(value: msgspec.Raw | str, cell: Cell) -> bytes:
    if isinstance(value, msgspec.Raw):
        return bytes(value)
    return cell_json(value, cell.dtype) if value else b"null"


def _time(micros: int, timestamp_format: str) -> str:
    """A time as the source writes it; of a numeric one, what does not divide is cut off."""
    if timestamp_format == "rfc3339":
        return f'"{from_micros(micros).isoformat()}"'
    return str(micros / MICROS["s"] if timestamp_format == "s" else micros // MICROS[timestamp_format])
