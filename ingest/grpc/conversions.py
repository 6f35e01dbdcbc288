"""Columns of Arrow → columns of a source, with the rules that `ingest.records` has for JSON: nothing is coerced."""

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute

from featurestore.definitions.dtypes import ScalarType
from featurestore.definitions.source import Source
from featurestore.landing.batch import EPOCH, MICROSECOND
from featurestore.landing.columns import LATEST
from featurestore.landing.schema import TIMESTAMP
from ingest.grpc.pieces import FileRefusedError
from ingest.records import LARGEST_EXACT, RECORD_BYTES, Rfc3339

pc: Any = pyarrow.compute  # the stubs do not know that kernels take scalars too

# A column and what is wrong with its bad rows, which are null in it.
Converted = tuple[pa.Array, dict[int, str]]
Converter = Callable[[pa.Array], Converted]

_MICROS = 1_000_000
_TICKS = {"s": 1, "ms": 1_000, "us": _MICROS, "ns": 1_000_000_000}  # in a second
_LAST_S = int(LATEST.timestamp())


def is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def converter(source: Source, name: str, kind: pa.DataType) -> Converter:
    """How a file's column of that type becomes the source's column.

    Raises:
        FileRefusedError: it does not.
    """
    if name not in source.times:
        dtype = source.columns[name].dtype
        found, wanted = _of_values(dtype, kind), dtype.__name__
    elif pa.types.is_timestamp(kind) and kind.tz is None:
        raise FileRefusedError(f"the times of column {name!r} have no zone; write them as UTC")
    else:
        found, wanted = _of_times(source.timestamp_format, kind), f"a time ({source.timestamp_format})"
    if found is None:
        raise FileRefusedError(f"column {name!r} has the type {kind}, which is not {wanted}")
    return found


def _of_values(dtype: ScalarType, kind: pa.DataType) -> Converter | None:
    whole = pa.types.is_integer(kind)
    if dtype is str:
        return _text if is_text(kind) else None
    if dtype is bool:
        return _as_it_is if pa.types.is_boolean(kind) else None
    if dtype is int:
        return _whole if whole else None
    return _exact if whole else _float if pa.types.is_floating(kind) else None


def _of_times(timestamp_format: str, kind: pa.DataType) -> Converter | None:
    if timestamp_format == "rfc3339":
        if is_text(kind):
            return _rfc3339
        return partial(_ticks, _TICKS[kind.unit]) if pa.types.is_timestamp(kind) else None
    if pa.types.is_integer(kind):
        return partial(_ticks, _TICKS[timestamp_format])
    return _seconds if timestamp_format == "s" and pa.types.is_floating(kind) else None


def _as_it_is(column: pa.Array) -> Converted:
    return column, {}


def _float(column: pa.Array) -> Converted:
    return pc.cast(column, pa.float64()), {}


def _whole(column: pa.Array) -> Converted:
    column, bad = _without(column, pc.greater(column, pa.scalar(2**63 - 1, pa.uint64())), "out of range")
    return pc.cast(column, pa.int64()), bad


def _exact(column: pa.Array) -> Converted:
    """Whole numbers as floats, where a float holds them."""
    floats = pc.cast(column, pa.float64(), safe=False)
    rows = pc.indices_nonzero(pc.greater_equal(pc.abs(floats), LARGEST_EXACT)).to_pylist()
    changed = [row for row in rows if int(floats[row].as_py()) != column[row].as_py()]
    return floats, dict.fromkeys(changed, "a float does not hold this whole number exactly")


def _text(column: pa.Array) -> Converted:
    texts = pc.cast(column, pa.string())
    texts, bad = _without(texts, pc.greater(pc.binary_length(texts), RECORD_BYTES), f"larger than {RECORD_BYTES} bytes")
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        raw = pc.cast(texts, pa.binary()).to_pylist()
        wrong = [row for row, value in enumerate(raw) if value is not None and not _is_utf8(value)]
        bad |= dict.fromkeys(wrong, "not valid UTF-8")
        kept = [None if row in bad else value for row, value in enumerate(raw)]
        texts = pc.cast(pa.array(kept, pa.binary()), pa.string())
    return texts, bad


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _ticks(per_second: int, column: pa.Array) -> Converted:
    """Whole numbers of ticks since 1970 (timestamps are that too) as micros; what does not divide is cut off."""
    kind = pa.uint64() if pa.types.is_unsigned_integer(column.type) else pa.int64()
    ticks = pc.cast(column, kind)
    ticks, bad = _without(ticks, _outside(ticks, _LAST_S * per_second), "not between 1970 and 2199")
    ticks = pc.cast(ticks, pa.int64())
    if per_second > _MICROS:
        return pc.divide(ticks, per_second // _MICROS).view(TIMESTAMP), bad
    return pc.multiply(ticks, _MICROS // per_second).view(TIMESTAMP), bad


def _seconds(column: pa.Array) -> Converted:
    """Seconds with a fraction as micros."""
    seconds = pc.cast(column, pa.float64())
    wrong = pc.or_(_outside(seconds, float(_LAST_S)), pc.is_nan(seconds))
    seconds, bad = _without(seconds, wrong, "not between 1970 and 2199")
    return pc.cast(pc.round(pc.multiply(seconds, float(_MICROS))), pa.int64()).view(TIMESTAMP), bad


def _rfc3339(column: pa.Array) -> Converted:
    micros: list[int | None] = []
    bad: dict[int, str] = {}
    texts, bad = _text(column)
    for row, text in enumerate(texts.to_pylist()):
        try:
            time = None if text is None else msgspec.convert(text, Rfc3339)
        except msgspec.ValidationError:
            time, bad[row] = None, "not an RFC 3339 time with a zone"
        micros.append(None if time is None else (time - EPOCH) // MICROSECOND)
    return pa.array(micros, pa.int64()).view(TIMESTAMP), bad


def _outside(column: pa.Array, end: float) -> pa.Array:
    return pc.or_(pc.less(column, 0), pc.greater_equal(column, end))


def _without(column: pa.Array, wrong: pa.Array, reason: str) -> Converted:
    """Null where it is wrong."""
    if not pc.any(wrong).as_py():
        return column, {}
    rows = dict.fromkeys(pc.indices_nonzero(wrong).to_pylist(), reason)
    return pc.if_else(wrong, pa.scalar(None, column.type), column), rows
