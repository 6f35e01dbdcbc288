"""What a power loss would leave: files and names as they were when they were synced."""

import os
import stat
from pathlib import Path
from typing import Literal

import pytest

Inode = tuple[int, int]


class Durable:
    """Records what is synced, by patching `os.fsync`; `restore` builds what would be found after a power loss.

    A file or name that was never synced is not there, which is the worst that a file system may do. `but` leaves out
    the syncs of files or of directories: as if the code did not do them.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, but: Literal["", "files", "directories"] = "") -> None:
        self._but = but
        self._files: dict[Inode, bytes] = {}
        self._names: dict[Inode, dict[str, Inode]] = {}
        real = os.fsync

        def fsync(handle: int) -> None:
            real(handle)
            self._note(handle)

        monkeypatch.setattr(os, "fsync", fsync)

    def _note(self, handle: int) -> None:
        status = os.fstat(handle)
        place = Path(f"/proc/self/fd/{handle}").readlink()
        directory = stat.S_ISDIR(status.st_mode)
        if self._but == ("directories" if directory else "files"):
            return
        if directory:
            with os.scandir(place) as entries:
                self._names[_inode(status)] = {
                    entry.name: _inode(entry.stat(follow_symlinks=False)) for entry in entries
                }
        else:
            self._files[_inode(status)] = place.read_bytes()

    def restore(self, root: Path, target: Path) -> Path:
        """Build at `target` what would be left of `root` (which itself is taken to be durable)."""
        target.mkdir()
        self._restore(_inode(root.stat()), target)
        return target

    def _restore(self, directory: Inode, target: Path) -> None:
        for name, inode in self._names.get(directory, {}).items():
            if inode in self._files:
                (target / name).write_bytes(self._files[inode])
            elif inode in self._names:
                (target / name).mkdir()
                self._restore(inode, target / name)


def _inode(status: os.stat_result) -> Inode:
    return status.st_dev, status.st_ino
