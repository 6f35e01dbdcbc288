"""Footer and page headers of a Parquet file, looked at before a reader believes them: they may be made to exhaust it.

A page says of itself how large it is, packed and unpacked, and how many values it has. A reader reserves so much at
once, whatever the footer says. The footer is read here too: pyarrow's way of showing a damaged one ends the process.
"""

import math
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

from ingest.grpc.pieces import FileRefusedError

PAGE_BYTES = 128 << 20  # unpacked; a page is held in memory whole

# The fields of a header (parquet.thrift), and those of its parts.
UNPACKED_BYTES, PACKED_BYTES = 2, 3
PARTS = {5: "data", 7: "dictionary", 8: "data"}
VALUES = 1  # of each part

_DAMAGED = "not a whole Parquet file"
# Those of the footer: of the file, a row group, a column of it and its description.
_ROW_GROUPS = 4
_COLUMNS, _ROWS = 1, 3
_META = 3
_PATH, _UNPACKED, _PACKED, _DATA_AT, _DICTIONARY_AT = 3, 6, 7, 9, 11
_CHUNK_BYTES = 1 << 30  # of one column in one row group, unpacked
_FOOTER_BYTES = 16 << 20

_HEADER_BYTES = 512  # most are a tenth of that
_LONGEST_HEADER_BYTES = 1 << 20
# Kinds of fields in Thrift's compact protocol.
_END, _TRUE, _FALSE, _BYTE, _NUMBERS, _DOUBLE, _BINARY, _LISTS, _STRUCT = 0, 1, 2, 3, (4, 5, 6), 7, 8, (9, 10), 12

Header = dict[int, Any]  # numbers, bytes, lists, and the parts, which are headers too


def check_pages(file: BinaryIO, columns: set[str]) -> None:
    """Look at every page of some columns.

    Raises:
        FileRefusedError: one is too large, or says what cannot be.
    """
    for group in _structs(_footer(file), _ROW_GROUPS):
        for chunk in _structs(group, _COLUMNS):
            told = chunk.get(_META)
            path = told.get(_PATH) if isinstance(told, dict) else None
            if not isinstance(told, dict) or not isinstance(path, list) or not path:
                raise FileRefusedError(f"{_DAMAGED}: a column has no description")
            if path[0] in {name.encode() for name in columns}:
                rows = math.inf if len(path) > 1 else _size(group.get(_ROWS))
                for header in _headers(file, *_range(told)):
                    _check(header, path[0].decode(), rows)


def _range(told: Header) -> tuple[int, int]:
    """Where the pages of a column lie in the file."""
    packed_bytes, unpacked_bytes = _size(told.get(_PACKED)), _size(told.get(_UNPACKED))
    start = min(_size(told.get(_DATA_AT)), _size(told.get(_DICTIONARY_AT, told.get(_DATA_AT))))
    if min(packed_bytes, unpacked_bytes, start) < 0:
        raise FileRefusedError(f"{_DAMAGED}: a column is nowhere")
    if unpacked_bytes > _CHUNK_BYTES:
        raise FileRefusedError(f"a column of a row group is over {_CHUNK_BYTES >> 20} MiB; write smaller row groups")
    return start, start + packed_bytes


def _footer(file: BinaryIO) -> Header:
    end = file.seek(-8, os.SEEK_END)
    length = int.from_bytes(file.read(4), "little")
    if length > min(end, _FOOTER_BYTES):
        raise FileRefusedError(f"its footer has {length} bytes; write fewer row groups")
    file.seek(end - length)
    try:
        return read_struct(file.read(length), 0)[0]
    except (IndexError, RecursionError):
        raise FileRefusedError(f"{_DAMAGED}: its footer cannot be read") from None


def _structs(header: Header, name: int) -> list[Header]:
    found = header.get(name, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise FileRefusedError(f"{_DAMAGED}: its footer cannot be read")
    return found


def _headers(file: BinaryIO, place: int, end: int) -> Iterator[Header]:
    while place < end:
        header, size_bytes = _header(file, place)
        yield header
        place += size_bytes + header[PACKED_BYTES]
        if place > end:
            raise FileRefusedError(f"{_DAMAGED}: a page is longer than its column")


def _check(header: Header, column: str, rows: float) -> None:
    if header[UNPACKED_BYTES] > PAGE_BYTES:
        raise FileRefusedError(f"a page of column {column!r} is over {PAGE_BYTES >> 20} MiB; write smaller pages")
    for number, kind in PARTS.items():
        part = header.get(number)
        values = part.get(VALUES, 0) if isinstance(part, dict) else 0
        if not 0 <= _size(values) <= (rows if kind == "data" else header[UNPACKED_BYTES]):
            raise FileRefusedError(f"{_DAMAGED}: a page of column {column!r} says {values} values")


def _header(file: BinaryIO, place: int) -> tuple[Header, int]:
    """A header, in which both sizes are, and how long it is itself."""
    length = _HEADER_BYTES
    while length <= _LONGEST_HEADER_BYTES:
        file.seek(place)
        try:
            header, end = read_struct(file.read(length), 0)
        except IndexError:  # it goes on
            length *= 8
            continue
        except RecursionError:
            break
        if min(_size(header.get(UNPACKED_BYTES)), _size(header.get(PACKED_BYTES))) < 0:
            break
        return header, end
    raise FileRefusedError(f"{_DAMAGED}: a page has no header")


def _size(value: object) -> int:
    return value if isinstance(value, int) else -1


def read_struct(data: bytes, place: int) -> tuple[Header, int]:
    """A struct of Thrift's compact protocol, and where it ends.

    Raises:
        IndexError: the data end before it does.
        FileRefusedError: it has fields of kinds that headers do not have.
    """
    found: Header = {}
    name = 0
    while data[place] != _END:
        kind, step = data[place] & 15, data[place] >> 4
        if step:
            name, place = name + step, place + 1
        else:
            name, place = _number(data, place + 1)
        found[name], place = _value(data, place, kind)
    return found, place + 1


def _value(data: bytes, place: int, kind: int) -> tuple[Any, int]:
    if kind in {_TRUE, _FALSE}:  # which is all of it
        return kind == _TRUE, place
    if kind in _NUMBERS:
        return _number(data, place)
    if kind == _STRUCT:
        return read_struct(data, place)
    if kind in _LISTS:
        return _list(data, place)
    if kind not in {_BYTE, _DOUBLE, _BINARY}:
        raise FileRefusedError(f"{_DAMAGED}: the header of a page cannot be read")
    count, place = _varint(data, place) if kind == _BINARY else (1 if kind == _BYTE else 8, place)
    if place + count > len(data):
        raise IndexError
    return data[place : place + count], place + count


def _list(data: bytes, place: int) -> tuple[list[Any], int]:
    kind, count = data[place] & 15, data[place] >> 4
    count, place = _varint(data, place + 1) if count == 15 else (count, place + 1)
    if place + count > len(data):  # each takes a byte at least
        raise IndexError
    found: list[Any] = []
    for _ in range(count):
        # Inside of a list, true and false are bytes.
        value, place = _value(data, place, _BYTE if kind in {_TRUE, _FALSE} else kind)
        found.append(value)
    return found, place


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[place] & 127) << shift
        shift, place = shift + 7, place + 1
        if data[place - 1] < 128:
            return value, place


def _number(data: bytes, place: int) -> tuple[int, int]:
    value, place = _varint(data, place)
    return (value >> 1) ^ -(value & 1), place
