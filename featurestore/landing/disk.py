"""The local disk as storage of the landing zone: durable before visible, and an exclusive create."""

import errno
import os
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from featurestore.errors import NoSpaceError

TEMPORARY = ".tmp"
_FULL = {errno.ENOSPC, errno.EDQUOT}
_SETTLED_NS = 2_000_000_000
_KNOWN_DIRECTORIES = 10_000


class DiskStorage:
    """Files below `root`; see featurestore.landing.storage.Storage."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._durable: set[Path] = set()  # directories, with all above them

    @property
    def address(self) -> str:
        return str(self.root)

    def directories(self, directory: str = "") -> list[str]:
        try:
            with os.scandir(self.root / directory) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except FileNotFoundError:
            return []

    def names(self, directory: str) -> list[str]:
        try:
            with os.scandir(self.root / directory) as entries:
                return [entry.name for entry in entries if not entry.is_dir()]
        except FileNotFoundError:
            return []

    def state(self, directory: str) -> int | None:
        """The time of its last change.

        A change within the clock's grain of the last one leaves the same time: only what has settled is told.
        """
        try:
            changed_ns = (self.root / directory).stat().st_mtime_ns
        except FileNotFoundError:
            return None
        return changed_ns if time.time_ns() - changed_ns > _SETTLED_NS else None

    def settle(self, directory: str) -> None:
        fsync_directory(self.root / directory)

    def open(self, path: str) -> BinaryIO:
        return (self.root / path).open("rb")

    @contextmanager
    def writing(self, path: str) -> Generator[BinaryIO]:
        final = self.root / path
        temporary = final.with_name(f".{final.name.partition('.')[0]}.{uuid.uuid4().hex}{TEMPORARY}")
        try:
            self._make(final.parent)
            with temporary.open("w+b") as file:
                yield file
        except OSError as error:
            if error.errno in _FULL:
                raise NoSpaceError(f"no space left on the disk of {final.parent}") from error
            raise
        finally:
            temporary.unlink(missing_ok=True)

    def _make(self, directory: Path) -> None:
        if directory not in self._durable or not directory.exists():
            make_directories(directory, self.root.parent)
            if len(self._durable) >= _KNOWN_DIRECTORIES:
                self._durable.clear()
            self._durable.add(directory)

    def create(self, file: BinaryIO, path: str) -> bool:
        """Unlike rename, link never replaces what is there."""
        file.flush()
        os.fsync(file.fileno())
        final = self.root / path
        try:
            os.link(file.name, final)
        except FileExistsError:
            return False
        os.unlink(file.name)  # noqa: PTH108  # as link had it
        fsync_directory(final.parent)
        return True

    def written_at(self, path: str) -> datetime | None:
        try:
            return datetime.fromtimestamp((self.root / path).stat().st_mtime, UTC)
        except FileNotFoundError:
            return None

    def replace(self, file: BinaryIO, path: str) -> None:
        file.flush()
        os.fsync(file.fileno())
        final = self.root / path
        Path(file.name).replace(final)
        fsync_directory(final.parent)

    def remove(self, path: str) -> None:
        (self.root / path).unlink(missing_ok=True)

    def remove_directory(self, directory: str) -> None:
        try:
            (self.root / directory).rmdir()
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST}:
                raise


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_directories(path: Path, root: Path) -> None:
    """Create `path` below `root`, each level durable in its parent: also one that is there, for who made it may have
    been killed before it was. A `root` that is there is believed.
    """
    for level in reversed([p for p in (path, *path.parents) if p == root or root in p.parents]):
        if level != root or not level.exists():
            level.mkdir(mode=0o700, parents=True, exist_ok=True)
            fsync_directory(level.parent)
