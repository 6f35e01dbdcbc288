"""The bytes of a value in Redis, for whole columns at once and back for one value.

    tag     1 byte   F float64, I int64, B bool, T text, N no value (an explicit NULL)
    stamp   4 bytes  CRC-32 of the order field of the value's row, big-endian
    value            float64 or int64 big-endian; one byte, 0 or 1; UTF-8. Behind N: anything

The stamp ties a value to its row. Which features of a view are online may change within a version, so a writer that
does not know a feature yet may move the entity to a newer row and leave that feature's older value behind; its stamp
shows that it does not belong to the row.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa

from featurestore.definitions.dtypes import ScalarType, arrow_type
from featurestore.online.octets import Column, Octets, joined, octets
from featurestore.online.values import Scalar
from featurestore.order import ORDER_BYTES, ORDER_COLUMNS

FORMAT = 1  # of everything in Redis; kept in fs:store
COMPACT_BYTES = 64  # hash-max-listpack-value: one longer field multiplies the memory of the entity's hash by 2.7

_VALUE_AT = 5  # behind tag and stamp
_LARGEST_EXACT = 2**53
_TAGS: Mapping[ScalarType, bytes] = {float: b"F", int: b"I", bool: b"B", str: b"T"}
_NO_VALUE = ord("N")
_STORED: Mapping[ScalarType, str] = {float: ">f8", int: ">i8", bool: "u1"}


def encode_orders(rows: pa.Table) -> Octets:
    """The order field of each row, as Order.to_bytes writes it.

    Raises:
        ValueError: a number is not exact as float64.
    """
    parts = np.stack([rows[name].cast(pa.int64()).to_numpy() for name in ORDER_COLUMNS], axis=1)
    if parts.size and np.abs(parts).max() > _LARGEST_EXACT:
        raise ValueError("a time, sequence or tie of these rows cannot be written exactly as float64")
    return octets(parts.astype(">f8"))


def encode_stamps(orders: Octets) -> Octets:
    """The stamp of each row."""
    data = orders.tobytes()
    stamps = [crc32(data[start : start + ORDER_BYTES]) for start in range(0, len(data), ORDER_BYTES)]
    return octets(np.array(stamps, dtype=">u4"))


def encode_column(column: pa.ChunkedArray, dtype: ScalarType, stamps: Octets) -> Column:
    """The stored bytes of each value of a column."""
    values: Any = column.cast(arrow_type(dtype)).combine_chunks()  # the stubs know no fill_null of an unknown type
    tags = np.full((len(values), 1), ord(_TAGS[dtype]), dtype="u1")
    if values.null_count:
        tags[~values.is_valid().to_numpy(zero_copy_only=False)] = _NO_VALUE
    if dtype is str:
        return joined([tags, stamps, values.fill_null("").cast(pa.binary())], len(values))
    numbers = values.fill_null(dtype()).to_numpy(zero_copy_only=False).astype(_STORED[dtype])
    return joined([tags, stamps, octets(numbers)], len(values))


def stamp(order: bytes) -> bytes:
    """The stamp of the values of the row with this order field."""
    return crc32(order).to_bytes(4, "big")


def event_micros(order: bytes) -> int:
    """The event timestamp of the row with this order field, in microseconds since 1970."""
    return int(_first_of_order(order)[0])


def decode(raw: bytes) -> Scalar | None:
    """The value of stored bytes; the stamp is the caller's to check.

    Raises:
        ValueError: these are not bytes that encode_column writes.
    """
    try:
        return _DECODERS[raw[0]](raw)
    except (KeyError, IndexError, struct.error) as error:
        raise ValueError(f"{raw[:16]!r} is not a stored value") from error


FLOAT = ord("F")
decode_float = struct.Struct(">5xd").unpack  # of the most frequent type, for the innermost loop
_first_of_order = struct.Struct(f">d{ORDER_BYTES - 8}x").unpack
_decode_int = struct.Struct(">5xq").unpack
_DECODERS: Mapping[int, Callable[[bytes], Scalar | None]] = {
    FLOAT: lambda raw: decode_float(raw)[0],
    ord("I"): lambda raw: _decode_int(raw)[0],
    ord("B"): lambda raw: raw[_VALUE_AT] == 1,
    ord("T"): lambda raw: raw[_VALUE_AT:].decode(),
    _NO_VALUE: lambda raw: None,
}
