"""The digest of a table's content: the same for the same values, whatever library, chunks or buffers hold them."""

from collections.abc import Iterator
from hashlib import sha256

import numpy as np
import pyarrow as pa

from featurestore.training.spine import pc

_CHUNK_ROWS = 65_536


def table_digest(table: pa.Table) -> str:
    """sha256 over names, types and values, row order included; what stands behind a NULL does not count."""
    digest = sha256(f"{table.num_rows}".encode())
    for name, column in zip(table.column_names, table.columns, strict=True):
        plain = _plain(column)
        digest.update(f"\0{name}\0{plain.type}\0".encode())
        for start in range(0, len(plain), _CHUNK_ROWS):
            for part in _bytes(_one(plain.slice(start, _CHUNK_ROWS))):
                digest.update(part)
    return digest.hexdigest()


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Types that only store the same values another way become the usual one."""
    dtype = column.type
    if pa.types.is_dictionary(dtype):
        return _plain(column.cast(dtype.value_type))
    return column.cast(pa.string()) if pa.types.is_large_string(dtype) else column


def _one(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return whole if isinstance(whole, pa.Array) else pa.concat_arrays(whole.chunks)


def _bytes(array: pa.Array) -> Iterator[bytes]:
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    yield np.packbits(valid).tobytes()
    dtype = array.type
    if pa.types.is_null(dtype):
        return
    if pa.types.is_boolean(dtype):
        yield np.packbits(array.fill_null(False).to_numpy(zero_copy_only=False)).tobytes()
    elif pa.types.is_string(dtype) or pa.types.is_binary(dtype):
        yield pc.binary_length(array).fill_null(0).to_numpy().tobytes()
        yield _characters(array.drop_null())
    elif pa.types.is_primitive(dtype) or pa.types.is_decimal(dtype):
        yield _fixed(array, valid)
    else:  # nested: rare in a spine, and its text says what is in it
        yield repr(array.to_pylist()).encode()


def _characters(texts: pa.Array) -> bytes:
    """All texts, one behind the other."""
    _, offsets, data = texts.buffers()
    if not len(texts) or offsets is None or data is None:
        return b""
    ends = np.frombuffer(memoryview(offsets), np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return memoryview(data)[int(ends[0]) : int(ends[-1])].tobytes()


def _fixed(array: pa.Array, valid: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> bytes:
    """Values of one width, zeros behind NULLs."""
    width = array.type.bit_width // 8
    data = array.buffers()[1]
    values = np.frombuffer(memoryview(data) if data else b"", np.uint8)
    values = values[array.offset * width : (array.offset + len(array)) * width]
    if array.null_count:
        values = values.reshape(-1, width) * valid[:, np.newaxis]
    return values.tobytes()
