"""Uploads: parts that are durable but invisible, until one manifest is published by exclusive create.

Landing and cancelling create the same name, so that only one of them wins; parts are removed only after a cancel won.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal
from uuid import uuid4

import msgspec
import pyarrow as pa

from featurestore.errors import CorruptFileError, FormatError, TerminalError
from featurestore.landing import dead_letters, parquet
from featurestore.landing.batch import Batch, from_micros, time_range, to_micros
from featurestore.landing.dead_letters import DeadLetter
from featurestore.landing.disk import (
    TEMPORARY,
    create_exclusively,
    fsync_directory,
    fsync_file,
    make_directories,
    writing,
)

MANIFEST = "manifest.json"


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


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of a finished upload (without parts when it was cancelled), None while it is open.

    What it says is durable: the directory is synced before it is believed.
    """
    path = directory / MANIFEST
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    fsync_directory(directory)
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise CorruptFileError(f"{path} is damaged: {error}") from error
    if manifest.format > parquet.FORMAT:
        raise FormatError(f"{path} has format {manifest.format}, this version reads up to {parquet.FORMAT}; upgrade it")
    return manifest


class UploadLanding:
    """Lands one upload. Used by one thread at a time; several uploads of one id race safely."""

    def __init__(self, root: Path, source: str, upload_id: str) -> None:
        self.chain = f"{source}/upload={upload_id}"
        self._root, self._source, self._upload_id = root, source, upload_id
        self._directory = root / self.chain
        self._parts: list[Part] = []

    def manifest(self) -> Manifest | None:
        """What became of the upload, None while it is open."""
        return read_manifest(self._directory)

    def write_part(self, table: pa.Table, *, first_row: int, end_row: int) -> None:
        """Make rows [first_row, end_row) of the file (those of them that are good) durable; nothing is visible yet."""
        make_directories(self._directory, self._root)
        first, last = time_range(table)
        part = Part(
            name=f"part-{uuid4().hex}.parquet",
            first_row=first_row,
            end_row=end_row,
            rows=table.num_rows,
            min_event_timestamp=None if first is None else to_micros(first),
            max_event_timestamp=None if last is None else to_micros(last),
            digest="",
            bytes=0,
        )
        with writing(self._directory, part.name) as temporary:
            digest = parquet.write(temporary, table, {"source": self._source, "upload_id": self._upload_id})
            size_bytes = temporary.stat().st_size
            temporary.rename(self._directory / part.name)  # the name is ours alone: it has a uuid
        self._parts.append(msgspec.structs.replace(part, digest=digest, bytes=size_bytes))

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
            NoSpaceError: the disk is full; nothing became visible.
        """
        if not self._parts:  # an upload without good rows is a batch too: its dead letters count
            self.write_part(schema.empty_table(), first_row=0, end_row=len(dead))
        dead_name = self._write_dead_letters(dead) if dead else ""
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
        make_directories(self._directory, self._root)
        manifest = self._conclude(
            Manifest(state="cancelled", source=self._source, upload_id=self._upload_id, created_at=to_micros(now()))
        )
        if manifest.state == "cancelled":
            for path in self._directory.iterdir():
                if path.name != MANIFEST and path.suffix != TEMPORARY:  # a racing writer removes its own
                    path.unlink(missing_ok=True)
        return manifest

    def _write_dead_letters(self, dead: Sequence[DeadLetter]) -> str:
        name = f"{uuid4().hex}{dead_letters.SUFFIX}"
        with writing(self._directory, name) as temporary:
            dead_letters.write(temporary, dead)
            temporary.rename(self._directory / name)
        return name

    def _conclude(self, manifest: Manifest) -> Manifest:
        fsync_directory(self._directory)  # the names of the parts are durable before something names them
        with writing(self._directory, MANIFEST) as temporary:
            temporary.write_bytes(msgspec.json.encode(manifest))
            fsync_file(temporary)
            if create_exclusively(temporary, self._directory / MANIFEST):
                return manifest
        winner = self.manifest()
        if winner is None:
            raise TerminalError(f"{self.chain}: the manifest vanished; was the landing zone changed by hand?")
        return winner
