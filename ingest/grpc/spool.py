"""Files that are being sent. What is committed is durable and survives a crash; what lies beyond it is sent again."""

import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Generator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from uuid import uuid4

import msgspec

from featurestore.errors import NoSpaceError
from featurestore.landing.disk import fsync_directory, make_directories
from ingest.grpc.refusals import InvalidFieldError

Format = Literal["parquet", "csv", "ndjson"]

_COMMIT_BYTES = 16 << 20
_READ_BYTES = 1 << 20
_ANNOUNCED, _ANNOUNCING, _DATA, _COMMITTED = "announced.json", "announcing", "data", "committed"
_ID_CHARACTERS = 256
_GONE = "."  # begins the names of those that were set aside
_FULL = {errno.ENOSPC, errno.EDQUOT}


def safe_id(upload_id: str) -> str:
    """A client's id as a file name: itself where that is harmless, else its hash."""
    if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", upload_id):
        return upload_id
    if not 1 <= len(upload_id) <= _ID_CHARACTERS:
        raise InvalidFieldError("upload_id", f"an id has 1 to {_ID_CHARACTERS} characters")
    return f"sha256-{hashlib.sha256(upload_id.encode()).hexdigest()}"  # longer than 64: it clashes with no other


class Announced(msgspec.Struct, frozen=True):
    """What the sender said of the file before sending it."""

    source: str
    upload_id: str
    format: Format
    size_bytes: int
    sha256: str


class Spool:
    """One file that is being sent, in a directory of its own."""

    def __init__(self, directory: Path, announced: Announced) -> None:
        self._directory, self.announced = directory, announced
        self.data = directory / _DATA

    @property
    def committed_bytes(self) -> int:
        return int((self._directory / _COMMITTED).read_bytes() or b"0")

    @contextmanager
    def appending(self) -> "Generator[Appender]":
        """Go on after what is committed; at the end, whatever ends it, what was added is committed.

        Raises:
            NoSpaceError: the disk is full; what was committed before stays.
        """
        try:
            with (
                self.data.open("r+b") as data_file,
                (self._directory / _COMMITTED).open("r+b") as mark_file,
                ThreadPoolExecutor(1, thread_name_prefix="sync") as thread,
            ):
                appender = Appender(data_file.fileno(), mark_file.fileno(), self.committed_bytes, thread)
                try:
                    yield appender
                finally:
                    appender.commit()
        except OSError as error:
            if error.errno in _FULL:
                raise NoSpaceError(f"no space left on the disk of {self._directory}") from error
            raise

    def set_aside(self) -> Path:
        """Take it away from everybody, in one step; return what is left to be removed."""
        gone = self._directory.with_name(f"{_GONE}{uuid4().hex}")
        self._directory.rename(gone)
        return gone


class Appender:
    """Appends to a file, and hashes it from its beginning. What came last is synced while more is coming."""

    def __init__(self, data: int, mark: int, committed_bytes: int, thread: Executor) -> None:
        self._data, self._mark, self._thread = data, mark, thread
        self.position = committed_bytes
        self._committed_bytes = self._syncing_bytes = committed_bytes
        self._synced: Future[None] | None = None
        self._hash = hashlib.sha256()
        for start in range(0, committed_bytes, _READ_BYTES):
            self._hash.update(os.pread(data, min(_READ_BYTES, committed_bytes - start), start))

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._data, view, self.position)
            self.position += written
            view = view[written:]
        self._hash.update(data)
        if self.position - self._syncing_bytes >= _COMMIT_BYTES:
            self._commit_last()
            self._begin_next()

    def commit(self) -> None:
        """Make durable what is there, and say so."""
        self._commit_last()
        if self.position > self._committed_bytes:
            self._begin_next()
            self._commit_last()

    def _begin_next(self) -> None:
        self._syncing_bytes = self.position
        self._synced = self._thread.submit(os.fsync, self._data)

    def _commit_last(self) -> None:
        """Wait until what was begun is durable, then say so."""
        if self._synced is not None:
            self._synced.result()
            self._synced = None
            os.pwrite(self._mark, f"{self._syncing_bytes:020d}".encode(), 0)
            os.fsync(self._mark)
            self._committed_bytes = self._syncing_bytes


def remove(gone: Path) -> None:
    """Remove one that was set aside."""
    shutil.rmtree(gone, ignore_errors=True)


class SpoolDirectory:
    """All files that are being sent. Beginning one and setting one aside are not to meet: the caller sees to that."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, name: str) -> Spool | None:
        directory = self._root / name
        try:
            announced = msgspec.json.decode((directory / _ANNOUNCED).read_bytes(), type=Announced)
        except FileNotFoundError:
            return None
        return Spool(directory, announced)

    def create(self, name: str, announced: Announced) -> Spool:
        """A new one, empty and durable. What was announced is written last: without it there is none."""
        directory = self._root / name
        try:
            make_directories(directory, self._root.parent)
            for empty in (_DATA, _COMMITTED):
                (directory / empty).touch(mode=0o600)
            with (directory / _ANNOUNCING).open("wb") as file:
                file.write(msgspec.json.encode(announced))
                file.flush()
                os.fsync(file.fileno())
            (directory / _ANNOUNCING).rename(directory / _ANNOUNCED)
            fsync_directory(directory)
        except OSError as error:
            if error.errno in _FULL:
                raise NoSpaceError(f"no space left on the disk of {directory}") from error
            raise
        return Spool(directory, announced)

    def remove_remains(self) -> None:
        """Remove what a kill left of one that was about to begin, or to go; nobody creates one meanwhile."""
        for path in self._paths():
            if path.name.startswith(_GONE) or not (path / _ANNOUNCED).exists():
                remove(path)

    def names(self) -> list[str]:
        return sorted(path.name for path in self._paths() if not path.name.startswith(_GONE))

    def _paths(self) -> list[Path]:
        return list(self._root.iterdir()) if self._root.exists() else []

    def expired(self, name: str, older_than_s: float) -> bool:
        """Whether nobody has touched one for so long."""
        directory = self._root / name
        return max(path.stat().st_mtime for path in (directory, *directory.iterdir())) < time.time() - older_than_s
