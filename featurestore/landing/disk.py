"""The local disk as storage of the landing zone: durable before visible, and an exclusive create."""

import errno
import os
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from featurestore.errors import NoSpaceError

TEMPORARY = ".tmp"
_FULL = {errno.ENOSPC, errno.EDQUOT}


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable; who believes a listing does this first."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_directories(path: Path, root: Path) -> None:
    """Create `path` below `root`, each new level durable in its parent."""
    missing = [p for p in (path, *path.parents) if (p == root or root in p.parents) and not p.exists()]
    for level in reversed(missing):
        level.mkdir(mode=0o700, parents=True, exist_ok=True)
        fsync_directory(level.parent)


@contextmanager
def writing(directory: Path, stem: str) -> Generator[Path]:
    """A temporary file in `directory`, gone at the end unless it was renamed; a full disk is a NoSpaceError."""
    temporary = directory / f".{stem}.{uuid.uuid4().hex}{TEMPORARY}"
    try:
        yield temporary
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpaceError(f"no space left on the disk of {directory}") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def fsync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def create_exclusively(temporary: Path, final: Path) -> bool:
    """Give a finished, fsynced file its name, unless the name is taken; durable when it returns.

    Returns whether the name was free. Unlike rename, link never replaces what is there.
    """
    try:
        os.link(temporary, final)
    except FileExistsError:
        return False
    temporary.unlink()
    fsync_directory(final.parent)
    return True
