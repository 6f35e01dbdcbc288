"""Tables of large jobs: files below the data directory that a job names, so that the rows are not written to Redis too.

A file is an Arrow IPC stream, the same as would stand in the job. Its name is all that a job says of it: there is no
path, link or address that leads elsewhere. The service removes it when the job is settled.
"""

import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc as ipc

from featurestore.database.wire import IN_FILE
from featurestore.errors import JobRefusedError, TransientError

_LARGEST_BYTES = 2 * 2**30
_FORGOTTEN_S = 3600.0
_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}\.arrow")


class JobFiles:
    """The files of one data directory; thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, table: pa.Table) -> str:
        """Write a file and return its name. It is not fsynced: a job counts when the service has committed it."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{secrets.token_urlsafe(24)}.arrow"
        with ipc.new_stream(str(self._directory / name), table.schema) as writer:
            writer.write_table(table)
        return name

    def fill(self, fields: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """The fields of a job, with the bytes of its files in place of their names.

        Raises:
            JobRefusedError: a name is not that of a file here.
            TransientError: a file is not there (any more).
        """
        read = {field.removesuffix(IN_FILE): self._read(name) for field, name in _named(fields)}
        return {**fields, **read}

    def remove(self, fields: Mapping[bytes, bytes]) -> None:
        """Remove the files of a job."""
        for _, name in _named(fields):
            if _NAME.fullmatch(name):
                with suppress(OSError):
                    (self._directory / name).unlink()

    def sweep(self) -> None:
        """Remove what clients left that died before they sent the job; to be called when no job waits."""
        with suppress(FileNotFoundError):
            for path in self._directory.glob("*.arrow"):
                if time.time() - path.lstat().st_mtime > _FORGOTTEN_S:
                    path.unlink()

    def _read(self, name: str) -> bytes:
        """Read, not mapped into memory: a file that shrinks meanwhile must not end the process."""
        if not _NAME.fullmatch(name):
            raise JobRefusedError(f"{name!r} is not the name of a file in {self._directory}; it is no path and no link")
        try:
            handle = os.open(self._directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise TransientError(
                f"{self._directory / name} is not there: the job's rows are gone; send it again"
            ) from error
        except OSError as error:
            raise JobRefusedError(f"{name!r} cannot be opened: {error.strerror}") from error
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
                raise JobRefusedError(f"{name!r} is a link, or no file")
            if found.st_size > _LARGEST_BYTES:
                raise JobRefusedError(f"{name!r} has {found.st_size} bytes, at most {_LARGEST_BYTES} are taken")
            with open(handle, "rb", closefd=False) as file:  # a handle, not a path
                return file.read()
        finally:
            os.close(handle)


def _named(fields: Mapping[bytes, bytes]) -> Iterator[tuple[bytes, str]]:
    return ((field, name.decode(errors="replace")) for field, name in fields.items() if field.endswith(IN_FILE))
