"""Parquet files whose page headers say something else than is there: sizes and counts."""

import io
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingest.grpc.pages import Header, read_struct

_TRUE, _FALSE, _I32, _BINARY, _STRUCT = 1, 2, 5, 8, 12  # kinds of fields in Thrift's compact protocol


def with_lie(table: pa.Table, lies: Mapping[tuple[int, ...], int], **written: Any) -> bytes:
    """The table as a file; fields, by their path, in the header of the first page of its last column are changed."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **written)
    data = buffer.getvalue()
    column = pq.read_metadata(io.BytesIO(data)).row_group(0).column(table.num_columns - 1)
    start = column.dictionary_page_offset or column.data_page_offset
    header, end = read_struct(data, start)
    for path, value in lies.items():
        inner = header
        for name in path[:-1]:
            inner = inner.get(name, {})
        if path[-1] in inner:
            inner[path[-1]] = value
    return data[:start] + _written(header) + data[end:]


def _written(header: Header) -> bytes:
    found, last = bytearray(), 0
    for name, value in header.items():
        kind, content = _field(value)
        found += bytes([(name - last) << 4 | kind]) + content
        last = name
    return bytes(found) + b"\0"


def _field(value: Any) -> tuple[int, bytes]:
    if isinstance(value, dict):
        return _STRUCT, _written(value)
    if isinstance(value, bool):
        return (_TRUE if value else _FALSE), b""
    if isinstance(value, int):
        return _I32, _varint(value * 2 if value >= 0 else -value * 2 - 1)
    return _BINARY, _varint(len(value)) + value


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
