"""What the generator sent and was acknowledged: compared with what arrived, it shows that nothing is lost or twice."""

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec


class Sent(msgspec.Struct):
    """Acknowledged records of one source, in total and per user."""

    good: int = 0  # to be landed
    doubtful: int = 0  # of the good ones: landed, then quarantined by an expectation of the view
    bad: int = 0  # to be dead letters
    in_doubt: int = 0  # sent in bursts of which not every record was acknowledged: they may have arrived
    good_of_user: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    last_of_user: dict[str, msgspec.Raw] = msgspec.field(default_factory=dict[str, msgspec.Raw])  # good, not doubtful

    def good_one(self, user: str, record: bytes, *, doubtful: bool = False) -> None:
        self.good += 1
        self.good_of_user[user] = self.good_of_user.get(user, 0) + 1
        if doubtful:
            self.doubtful += 1
        else:
            self.last_of_user[user] = msgspec.Raw(record)

    def add(self, later: "Sent") -> None:
        """Put what was sent later on top."""
        self.good += later.good
        self.doubtful += later.doubtful
        self.bad += later.bad
        self.in_doubt += later.in_doubt
        for user, count in later.good_of_user.items():
            self.good_of_user[user] = self.good_of_user.get(user, 0) + count
        self.last_of_user.update(later.last_of_user)


class Ledger:
    """The ledger of one run, one file that is replaced as a whole: a reader always sees a true state.

    A generator that is killed may have been acknowledged more than its file says, never less. Thread-safe.
    """

    def __init__(self, data_dir: Path) -> None:
        directory = _directory(data_dir)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = directory / f"{time.time_ns():020d}.json"
        self._lock = threading.Lock()
        self._sources: dict[str, Sent] = {}
        self._changed = False

    def add(self, source: str, sent: Sent) -> None:
        with self._lock:
            self._sources.setdefault(source, Sent()).add(sent)
            self._changed = True

    def write(self) -> None:
        with self._lock:
            if not self._changed:
                return
            data = msgspec.json.encode(self._sources)
            self._changed = False
        temporary = self._path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)


def read_ledger(data_dir: Path) -> Mapping[str, Sent]:
    """What all runs together sent, by source."""
    total: dict[str, Sent] = {}
    for path in sorted(_directory(data_dir).glob("*.json")):
        for source, sent in msgspec.json.decode(path.read_bytes(), type=dict[str, Sent]).items():
            total.setdefault(source, Sent()).add(sent)
    return total


def _directory(data_dir: Path) -> Path:
    return data_dir / "generator" / "ledger"
