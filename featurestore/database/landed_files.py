"""Landed files that are not on this machine's disk, for DuckDB to read as if they were."""

import io
import threading
from datetime import datetime
from typing import Any, BinaryIO, Protocol

from fsspec import AbstractFileSystem

PREFIX = "landed://"


class Landed(Protocol):
    """As much as is needed of what landed files lie in; see featurestore.landing.storage.Storage."""

    def open(self, path: str) -> BinaryIO: ...

    def written_at(self, path: str) -> datetime | None: ...


class LandedFiles(AbstractFileSystem):
    """What DuckDB asks of a file system, to be registered with it; nothing is written. Thread-safe.

    DuckDB keeps what it has read in its memory, as long as a file's size and time stay the same.
    """

    protocol = PREFIX.removesuffix("://")
    cachable = False

    def __init__(self, landed: Landed) -> None:
        super().__init__()
        self._landed = landed
        self._looked_at: dict[str, tuple[int, datetime | None]] = {}

    def look_again(self) -> None:
        """Forget what the files looked like: an erasure may have replaced some. For the beginning of a query."""
        self._looked_at.clear()

    def glob(self, path: str, **_: Any) -> list[str]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return [path]

    def open(self, path: str, mode: str = "rb", **_: Any) -> "_File":  # pyright: ignore[reportIncompatibleMethodOverride]
        if mode != "rb":
            raise PermissionError(f"{path} is for reading")
        return _File(self._landed.open(path.removeprefix(PREFIX)))

    def size(self, path: str) -> int:
        return self._look_at(path)[0]

    def modified(self, path: str) -> datetime | None:
        return self._look_at(path)[1]

    def _look_at(self, path: str) -> tuple[int, datetime | None]:
        """DuckDB asks for it each time that it opens a file, several times in a query."""
        if (known := self._looked_at.get(path)) is not None:
            return known
        name = path.removeprefix(PREFIX)
        with self._landed.open(name) as file:
            found = self._looked_at[path] = file.seek(0, io.SEEK_END), self._landed.written_at(name)
        return found


class _File:
    """A place for each thread: DuckDB's threads share a file, and each seeks and then reads."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock, self._of_thread = threading.Lock(), threading.local()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with self._lock:
            self._of_thread.place = self._file.seek(offset, whence)
        return self._of_thread.place

    def read(self, size: int = -1) -> bytes:
        with self._lock:
            self._file.seek(getattr(self._of_thread, "place", 0))
            data = self._file.read(size)
            self._of_thread.place = self._file.tell()
        return data

    def close(self) -> None:
        self._file.close()
