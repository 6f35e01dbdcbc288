"""Landed Parquet: one digest that covers every byte of the file, and page checksums for other readers.

The footer carries the metadata with a seal: the digest of the file, and a checksum of the metadata itself, so that a
listing, which reads no more than the footer, does not believe a flipped bit either.
"""

import hashlib
import io
import os
import zlib
from collections.abc import Mapping
from contextlib import closing
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.errors import CorruptFileError, FormatError

FORMAT = 1
_KEY = b"featurestore"
_DIGEST, _SEAL = 64, 72  # hexadecimal digits of the digest alone, and with the checksum
_UNSET = "0" * _SEAL  # stands where the seal will stand while the digest is taken
_CHUNK_BYTES = 1 << 20
_FOOTER_SEARCH_BYTES = 1 << 20  # the metadata stands within the footer, at the end of the file


class Writer:
    """Writes a whole file into an empty one, a row group at a time: no more than one is held in memory."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        deltas = {name: "DELTA_BINARY_PACKED" for name in ("sequence", "event_timestamp") if name in schema.names}
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        self._file = file
        self._writer = pq.ParquetWriter(
            file,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=texts,  # pyright: ignore[reportArgumentType]  # the stubs know only true and false
            column_encoding=deltas or None,
            write_page_checksum=True,
        )

    def add(self, table: pa.Table, *, group_rows: int | None = None) -> None:
        """Write rows, as one row group or in groups of `group_rows`."""
        self._writer.write_table(table, row_group_size=group_rows)

    def finish(self, metadata: Mapping[str, Any]) -> str:
        """Write the footer; return the digest in it."""
        text = msgspec.json.encode({"format": FORMAT, **metadata, "seal": _UNSET})
        self._writer.add_key_value_metadata({_KEY.decode(): text.decode()})
        self.close()
        self._file.flush()
        return _seal(self._file, text)

    def close(self) -> None:
        """Let go of it; without `finish` it is no landed file."""
        self._writer.close()


def write(file: BinaryIO, table: pa.Table, metadata: Mapping[str, Any], *, group_rows: int | None = None) -> str:
    """Write a table, in row groups of `group_rows`; return the digest in the file's footer."""
    with closing(Writer(file, table.schema)) as writer:
        writer.add(table, group_rows=group_rows)
        return writer.finish(metadata)


def _seal(file: BinaryIO, text: bytes) -> str:
    """Put the digest of the file (with zeros in the seal's place) and the checksum of the metadata into their place."""
    handle, size = file.fileno(), file.seek(0, os.SEEK_END)
    start = max(0, size - _FOOTER_SEARCH_BYTES)
    place = _place_of(os.pread(handle, size - start, start), _UNSET)
    if place is None:
        raise CorruptFileError("the footer has no place for a digest")
    place += start
    digest = hashlib.sha256()
    for chunk_start in range(0, size, _CHUNK_BYTES):
        digest.update(os.pread(handle, _CHUNK_BYTES, chunk_start))  # the zeros are there already
    os.pwrite(handle, f"{digest.hexdigest()}{_checksum(text, digest.hexdigest())}".encode(), place)
    return digest.hexdigest()


def read_metadata(file: BinaryIO, name: str) -> dict[str, Any]:
    """What a file says of itself, from its footer alone; `name` is for messages. `replaces` is the digest of the landed
    file in whose place it stands (its own, where nothing was replaced).

    Raises:
        CorruptFileError: it is not a landed file, or damaged.
        FormatError: a newer version wrote it.
    """
    try:
        text = (pq.read_metadata(file).metadata or {})[_KEY]  # pyright: ignore[reportArgumentType]  # files will do
        metadata: dict[str, Any] = msgspec.json.decode(text)
        seal = str(metadata.pop("seal"))
        metadata["digest"] = seal[:_DIGEST]
        metadata.setdefault("replaces", metadata["digest"])
    except (pa.ArrowException, OSError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise CorruptFileError(f"{name} is not a landed file, or damaged: {error}") from error
    if seal[_DIGEST:] != _checksum(text.replace(seal.encode(), _UNSET.encode()), metadata["digest"]):
        raise CorruptFileError(f"{name} is damaged: what it says of itself does not have its checksum")
    if metadata["format"] > FORMAT:
        raise FormatError(f"{name} has format {metadata['format']}, this version reads up to {FORMAT}; upgrade it")
    return metadata


def read(file: BinaryIO, name: str, digest: str = "") -> pa.Table:
    """The rows of a landed file, after comparing every byte with its digest; `name` is for messages.

    `digest` is what the file had when it landed: another one is believed if it says that it stands in its place.

    Raises:
        CorruptFileError: it is not the file that was written.
    """
    data = file.read()
    metadata = read_metadata(io.BytesIO(data), name)
    said, known = metadata["digest"], {metadata["digest"], metadata["replaces"], ""}
    place = _place_of(data, said)
    if digest not in known or place is None or _digest_of(data, place) != said:
        raise CorruptFileError(f"{name} is damaged: its bytes do not have the digest {(digest or said)[:12]}…")
    return pq.ParquetFile(pa.BufferReader(data)).read()


def _place_of(data: bytes, seal: str) -> int | None:
    """Where the seal that begins like this stands."""
    found = data.rfind(b'"seal":"' + seal.encode())
    return None if found < 0 else found + len('"seal":"')


def _digest_of(data: bytes, place: int) -> str:
    view = memoryview(data)
    digest = hashlib.sha256(view[:place])
    digest.update(_UNSET.encode())
    digest.update(view[place + _SEAL :])
    return digest.hexdigest()


def _checksum(text: bytes, digest: str) -> str:
    """Of the metadata, with zeros in the seal's place, and of the digest."""
    return f"{zlib.crc32(digest.encode(), zlib.crc32(text)):08x}"
