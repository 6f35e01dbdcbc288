"""Uploads: taken up where they were cut, checked, and landed whole.

What was sent lies in the spool until all of it is there. `committed` bytes are durable and survive a crash; what the
file has beyond them is cut off when the upload goes on.
"""

import hashlib
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

import google_crc32c
import grpc
import msgspec

from featurestore.definitions.project import Project
from featurestore.definitions.source import Source, UploadSource
from featurestore.errors import FeatureStoreError, NoSpaceError, TerminalError
from featurestore.landing import dead_letters
from featurestore.landing.disk import fsync_directory, fsync_file, make_directories
from featurestore.landing.uploads import Manifest
from featurestore.landing.zone import LandingZone, utc_now
from featurestore.settings import Settings
from ingest.columns import Door
from ingest.grpc.formats import read_csv, read_ndjson
from ingest.grpc.parquet import read_parquet
from ingest.grpc.pieces import FileRefusedError, Piece
from ingest.grpc.refusals import RefusedError
from ingest.grpc.split import land
from ingest.metrics import IngestMetrics

log = logging.getLogger(__name__)

Format = Literal["parquet", "csv", "ndjson"]
READERS: dict[Format, Callable[[Path, Door, Callable[[], datetime]], Iterator[Piece]]] = {
    "parquet": read_parquet,
    "csv": read_csv,
    "ndjson": read_ndjson,
}
REJECTED_ROWS = 100  # told in a receipt; all of them are dead letters

_COMMIT_BYTES = 16 << 20
_EXPIRE_S = 24 * 3600.0  # of an upload that nobody goes on with
_ID_CHARACTERS = 256


class Chunk(Protocol):
    """A piece of a file as it was sent."""

    @property
    def offset(self) -> int: ...
    @property
    def data(self) -> bytes: ...
    @property
    def crc32c(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a landed upload; `rejected` has the first of its dead rows."""

    manifest: Manifest
    rejected: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Status:
    """How far an upload is."""

    state: Literal["open", "landed", "cancelled"]
    committed_bytes: int = 0
    receipt: Receipt | None = None


class Announced(msgspec.Struct, frozen=True):
    """What the sender said of the file before sending it."""

    source: str
    upload_id: str
    format: Format
    size_bytes: int
    sha256: str


def safe_id(upload_id: str) -> str:
    """A client's id as a file name: itself where that is harmless, else its hash."""
    if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", upload_id):
        return upload_id
    if not upload_id or len(upload_id) > _ID_CHARACTERS:
        raise TerminalError(f"an upload's id has 1 to {_ID_CHARACTERS} characters")
    return f"sha256-{hashlib.sha256(upload_id.encode(errors='surrogatepass')).hexdigest()}"  # longer than 64: no clash


def upload_door(project: Project, name: str) -> Door:
    """The declaration of a source that takes uploads.

    Raises:
        DefinitionError: no such source is declared.
        TerminalError: its rows come another way.
    """
    source: Source = project.source(name)
    if not isinstance(source, UploadSource):
        raise TerminalError(f"source {name!r} is a {type(source).__name__}: its rows do not come as uploads")
    return Door.of(source, project)


def receipt_of(zone: LandingZone, manifest: Manifest, rejected_rows: int = REJECTED_ROWS) -> Receipt:
    if not manifest.dead_letters:
        return Receipt(manifest, ())
    chain = zone.open_upload(manifest.source, manifest.upload_id).chain
    dead = dead_letters.read(zone.root / chain / manifest.dead_letters)
    return Receipt(manifest, tuple((one.sequence, one.reason) for one in dead[:rejected_rows]))
