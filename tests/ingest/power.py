"""What a power loss would leave: files and names as they were when they were synced."""

import logging
import os
import stat
from pathlib import Path
from typing import Literal

import pytest
from confluent_kafka import TopicPartition

from ingest.kafka.daemon import KafkaDaemon

Inode = tuple[int, int]


log = logging.getLogger(__name__)

IN_TIME, TOO_EARLY = "acknowledged when it is durable", "acknowledged before it is durable"

But = Literal["", "files", "directories"]


class Durable:
    """Records what is synced, by patching `os.fsync`; `restore` builds what would be found after a power loss.

    A file or name that was never synced is not there, which is the worst that a file system may do. `but` leaves out
    the syncs of files or of directories: as if the code did not do them.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, but: But = "") -> None:
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

    def holds(self, path: Path, root: Path) -> bool:
        """Whether a power loss would leave the file at `path`, below `root`, as it is."""
        inode = _inode(root.stat())
        for name in path.relative_to(root).parts:
            if name not in self._names.get(inode, {}):
                return False
            inode = self._names[inode][name]
        return self._files.get(inode) == path.read_bytes()

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


class Witness:
    """In place of a daemon's consumer: offsets are acknowledged only after what lies before them is durable (P2)."""

    def __init__(self, daemon: KafkaDaemon, durable: Durable, root: Path) -> None:
        self._assignment, self._durable, self._root = daemon.assignment, durable, root
        self._consumer = daemon.assignment._consumer
        daemon.assignment._consumer = self  # pyright: ignore[reportAttributeAccessIssue]
        self.acknowledged = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._consumer, name)

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        for one in offsets:
            partition = self._assignment.get(one.topic, one.partition)
            assert partition is not None
            batch = partition.previous
            assert batch is not None
            assert batch.end == one.offset
            names = filter(None, (batch.batch_id, batch.dead_letters and f"{batch.chain}/{batch.dead_letters}"))
            for path in (self._root / name for name in names):
                assert self._durable.holds(path, self._root.parent), f"{path} is {TOO_EARLY}"
            self.acknowledged += 1
            log.info("%s/%d to %d: %s", one.topic, one.partition, one.offset, IN_TIME)
        self._consumer.commit(offsets=offsets, asynchronous=asynchronous)
