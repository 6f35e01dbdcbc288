"""Landed Parquet: one digest that covers every byte of the file, and page checksums for other readers."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.errors import CorruptFileError, FormatError

FORMAT = 1
_KEY = b"featurestore"
_UNSET = "0" * 64  # stands where the digest will stand while the digest is taken
_CHUNK_BYTES = 1 << 20
_FOOTER_SEARCH_BYTES = 1 << 20  # the metadata stands within the footer, at the end of the file


def write(path: Path, table: pa.Table, metadata: Mapping[str, Any]) -> str:
    """Write and fsync a whole file; return the digest that its footer carries."""
    names = {field.name for field in table.schema}
    deltas = {name: "DELTA_BINARY_PACKED" for name in ("sequence", "event_timestamp") if name in names}
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    writer = pq.ParquetWriter(
        path,
        table.schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=texts,  # pyright: ignore[reportArgumentType]  # the stubs know only true and false
        column_encoding=deltas or None,
        write_page_checksum=True,
    )
    with writer:
        writer.write_table(table)
        text = msgspec.json.encode({"format": FORMAT, **metadata, "digest": _UNSET}).decode()
        writer.add_key_value_metadata({_KEY.decode(): text})
    return _seal(path)


def _seal(path: Path) -> str:
    """Put the digest of the file (with zeros in the digest's place) into its place."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        place = _place_of(file.fileno(), size, _UNSET)
        if place is None:
            raise CorruptFileError(f"{path}: the footer has no place for a digest")
        digest = _digest(file.fileno(), size, place)
        os.pwrite(file.fileno(), digest.encode(), place)
        os.fsync(file.fileno())
    return digest


def read_metadata(path: Path) -> dict[str, Any]:
    """What the file says of itself.

    Raises:
        CorruptFileError: it is not a landed file, or damaged.
        FormatError: a newer version wrote it.
    """
    try:
        metadata: dict[str, Any] = msgspec.json.decode((pq.read_metadata(path).metadata or {})[_KEY])
    except (pa.ArrowException, OSError, KeyError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise CorruptFileError(f"{path} is not a landed file: {error}") from error
    if metadata["format"] > FORMAT:
        raise FormatError(f"{path} has format {metadata['format']}, this version reads up to {FORMAT}; upgrade it")
    return metadata


def read(path: Path, digest: str) -> pa.Table:
    """The rows of a landed file, after comparing every byte with `digest`.

    Raises:
        CorruptFileError: it is not the file that was written.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        place = _place_of(file.fileno(), size, digest)
        if place is None or _digest(file.fileno(), size, place) != digest:
            raise CorruptFileError(f"{path} is damaged: its bytes do not have the digest {digest[:12]}…")
    return pq.ParquetFile(path).read()  # read_table would make columns of directories called name=value


def _place_of(handle: int, size: int, text: str) -> int | None:
    start = max(0, size - _FOOTER_SEARCH_BYTES)
    found = os.pread(handle, size - start, start).rfind(f'"digest":"{text}"'.encode())
    return None if found < 0 else start + found + len('"digest":"')


def _digest(handle: int, size: int, place: int) -> str:
    digest = hashlib.sha256()
    for start in range(0, size, _CHUNK_BYTES):
        chunk = os.pread(handle, _CHUNK_BYTES, start)
        if start <= place + 64 and place < start + len(chunk):
            chunk = bytearray(chunk)
            for index in range(max(place, start) - start, min(place + 64, start + len(chunk)) - start):
                chunk[index] = ord("0")
        digest.update(chunk)
    return digest.hexdigest()
