"""Uploads: parts that are durable but invisible, until one manifest is published by exclusive create.

Landing and cancelling create the same name, so that only one of them wins. Parts are removed by who wrote them, or when
that is decided and the winner does not name them.
"""

import os
import zlib
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from typing import Literal
from uuid import uuid4

import msgspec
import pyarrow as pa

from featurestore.errors import CorruptFileError, FormatError, TerminalError
from featurestore.landing import dead_letters, parquet
from featurestore.landing.batch import Batch, from_micros, to_micros
from featurestore.landing.dead_letters import DeadLetter
from featurestore.landing.disk import TEMPORARY
from featurestore.landing.schema import time_range
from featurestore.landing.storage import Storage

DIRECTORY = "upload="  # and the id
MANIFEST = "manifest.json"
REMOVED = "removed"  # beside it: the rows are older than their source is kept; the upload's id stays taken


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One file of an upload's rows: a batch."""

    name: str
    first_row: int
    end_row: int
    rows: int
    min_event_timestamp: int | None
    max_event_timestamp: int | None
    digest: str
    bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an upload. Times are microseconds since 1970."""

    format: int = parquet.FORMAT
    state: Literal["landed", "cancelled"]
    source: str
    upload_id: str
    sha256: str = ""  # of the file as it was sent
    bytes: int = 0
    rows: int = 0
    dead_rows: int = 0
    dead_letters: str = ""
    schema_version: str = ""
    created_at: int
    parts: tuple[Part, ...] = ()

    def batches(self, chain: str) -> list[Batch]:
        """The parts as batches; the first one carries the upload's dead letters."""
        return [
            Batch(
                batch_id=f"{chain}/{part.name}",
                source=self.source,
                start=part.first_row,
                end=part.end_row,
                rows=part.rows,
                dead_rows=0 if index else self.dead_rows,
                created_at=from_micros(self.created_at),
                min_event_timestamp=None if part.min_event_timestamp is None else from_micros(part.min_event_timestamp),
                max_event_timestamp=None if part.max_event_timestamp is None else from_micros(part.max_event_timestamp),
                schema_version=self.schema_version,
                digest=part.digest,
                bytes=part.bytes,
                dead_letters="" if index else self.dead_letters,
            )
            for index, part in enumerate(self.parts)
        ]


def _with_checksum(text: bytes) -> bytes:
    """A JSON object with one more member: the checksum of its text without it."""
    return text[:-1] + b',"checksum":"%08x"}' % zlib.crc32(text)


_CHECKSUM_BYTES = len(_with_checksum(b"{}")) - len(b"{")  # with the brace that ends it


def read_manifest(storage: Storage, chain: str) -> Manifest | None:
    """The manifest of a finished upload (without parts when it was cancelled), None while it is open.

    What it says is durable: the directory is settled before it is believed.

    Raises:
        CorruptFileError, FormatError: it cannot be read.
    """
    path = f"{chain}/{MANIFEST}"
    try:
        with storage.open(path) as file:
            data = file.read()
    except FileNotFoundError:
        return None
    storage.settle(chain)
    name = f"{storage.address}/{path}"
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptFileError(f"{name} is damaged: {error}") from error
    if data != _with_checksum(data[:-_CHECKSUM_BYTES] + b"}"):
        raise CorruptFileError(f"{name} is damaged: it does not have its checksum")
    if manifest.format > parquet.FORMAT:
        raise FormatError(f"{name} has format {manifest.format}, this version reads up to {parquet.FORMAT}; upgrade it")
    return manifest


class UploadLanding:
    """Lands one upload. Used by one thread at a time; several uploads of one id race safely."""

    def __init__(self, storage: Storage, source: str, upload_id: str) -> None:
        self.chain = f"{source}/{DIRECTORY}{upload_id}"
        self._storage, self._source, self._upload_id = storage, source, upload_id
        self._parts: list[Part] = []

    def manifest(self) -> Manifest | None:
        """What became of the upload, None while it is open."""
        return read_manifest(self._storage, self.chain)

    @contextmanager
    def part(self, schema: pa.Schema, *, first_row: int) -> "Generator[PartWriter]":
        """A part to fill, which begins at a row of the file: durable at the end, unless that is an error."""
        name = f"part-{uuid4().hex}.parquet"
        path = f"{self.chain}/{name}"  # ours alone: it has a uuid
        with self._storage.writing(path) as file, closing(parquet.Writer(file, schema)) as writer:
            part = PartWriter(writer, first_row)
            yield part
            digest = writer.finish({"source": self._source, "upload_id": self._upload_id})
            size_bytes = file.seek(0, os.SEEK_END)
            self._storage.create(file, path)
        self._parts.append(part.described(name, digest, size_bytes))

    def write_part(self, table: pa.Table, *, first_row: int, end_row: int) -> None:
        """Make rows [first_row, end_row) of the file (those of them that are good) durable; nothing is visible yet."""
        with self.part(table.schema, first_row=first_row) as part:
            part.add(table, end_row=end_row)

    def publish(
        self,
        *,
        sha256: str,
        size_bytes: int,
        schema: pa.Schema,
        schema_version: str,
        dead: Sequence[DeadLetter],
        now: Callable[[], datetime],
    ) -> Manifest:
        """Land what was written; return the manifest that won, which may be an earlier one or a cancel.

        Raises:
            TransientError: the disk is full, or the storage does not answer; nothing became visible.
        """
        if not self._parts:  # an upload without good rows is a batch too: its dead letters count
            self.write_part(schema.empty_table(), first_row=0, end_row=len(dead))
        dead_name = f"{uuid4().hex}{dead_letters.SUFFIX}" if dead else ""
        if dead:
            dead_letters.write(self._storage, f"{self.chain}/{dead_name}", dead)
        return self._conclude(
            Manifest(
                state="landed",
                source=self._source,
                upload_id=self._upload_id,
                sha256=sha256,
                bytes=size_bytes,
                rows=sum(part.rows for part in self._parts),
                dead_rows=len(dead),
                dead_letters=dead_name,
                schema_version=schema_version,
                created_at=to_micros(now()),
                parts=tuple(self._parts),
            )
        )

    def cancel(self, now: Callable[[], datetime]) -> Manifest:
        """Give the upload up, unless it has landed; return the manifest that won."""
        manifest = self._conclude(
            Manifest(state="cancelled", source=self._source, upload_id=self._upload_id, created_at=to_micros(now()))
        )
        self.sweep(manifest)
        return manifest

    def left_at(self) -> datetime | None:
        """When an upload that is open was written to last; None where there is none, or it is decided."""
        names = self._storage.names(self.chain)
        if MANIFEST in names:
            return None
        paths = [f"{self.chain}/{name}" for name in names] or [self.chain]
        return max(filter(None, map(self._storage.written_at, paths)), default=None)

    def give_up(self, now: Callable[[], datetime]) -> None:
        """Cancel the upload if anything of it is left, so that it can be removed; otherwise its id stays free.

        Nobody is landing it.
        """
        if self._storage.names(self.chain):
            self.sweep(self.cancel(now), alone=True)
        else:
            self._storage.remove_directory(self.chain)

    def sweep(self, decided: Manifest, *, alone: bool = False) -> None:
        """Remove what the manifest does not name: there is no other, so that it can never be seen.

        What somebody may be writing is left alone, unless there is nobody but the caller.
        """
        named = {MANIFEST, decided.dead_letters, *(part.name for part in decided.parts)}
        for name in self._storage.names(self.chain):
            if name not in named and (alone or not name.endswith(TEMPORARY)):
                self._storage.remove(f"{self.chain}/{name}")

    def discard(self) -> None:
        """Remove the parts that were written here: nobody else knows their names. Nobody else is landing the upload."""
        for part in self._parts:
            self._storage.remove(f"{self.chain}/{part.name}")
        self._parts = []
        self._storage.remove_directory(self.chain)

    def _conclude(self, manifest: Manifest) -> Manifest:
        path = f"{self.chain}/{MANIFEST}"
        with self._storage.writing(path) as file:
            file.write(_with_checksum(msgspec.json.encode(manifest)))
            if self._storage.create(file, path):
                return manifest
        winner = self.manifest()
        if winner is None:
            raise TerminalError(f"{self.chain}: the manifest vanished; was the landing zone changed by hand?")
        return winner


class PartWriter:
    """The rows of a part, as they come."""

    def __init__(self, writer: parquet.Writer, first_row: int) -> None:
        self._writer = writer
        self._first_row = self._end_row = first_row
        self._rows = 0
        self._times: list[datetime] = []  # the smallest and largest of each table

    def add(self, table: pa.Table, *, end_row: int) -> None:
        """Write rows as a row group; the file has been read up to `end_row`."""
        self._writer.add(table)
        self._end_row = end_row
        self._rows += table.num_rows
        self._times += [time for time in time_range(table) if time is not None]

    def described(self, name: str, digest: str, size_bytes: int) -> Part:
        return Part(
            name=name,
            first_row=self._first_row,
            end_row=self._end_row,
            rows=self._rows,
            min_event_timestamp=to_micros(min(self._times)) if self._times else None,
            max_event_timestamp=to_micros(max(self._times)) if self._times else None,
            digest=digest,
            bytes=size_bytes,
        )
