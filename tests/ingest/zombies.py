"""Kafka daemons as processes that compete and are killed, and an audit of what they have landed.

`python -m tests.ingest.zombies VARIANT` runs a daemon whose landing is weakened in one way, as negative controls do;
without a VARIANT, it is as it is, and watched at each of its acknowledgements (P2).
"""

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pytest

import featurestore as fs
from featurestore.landing.batch import Batch
from featurestore.landing.disk import DiskStorage, fsync_directory
from featurestore.landing.publish import read_batch
from featurestore.landing.storage import open_storage
from featurestore.landing.zone import LandingZone
from featurestore.process.logs import configure
from featurestore.settings import Settings
from ingest.kafka.daemon import KafkaDaemon, main
from tests.ingest.kafka.conftest import project
from tests.ingest.power import IN_TIME, TOO_EARLY, Durable, Witness
from tests.services import ENV

TOPIC = "ZOMBIES_TOPIC"  # the variable that names the topic
PROJECT: fs.Project = project(ENV.get(TOPIC, "nothing"))

_BATCH_FILE = re.compile(r"\d{20}\.parquet")


class Zombies:
    """Daemons of one landing zone, of one group or, by default, each in a group of its own: then all of them read, and
    land, every partition.
    """

    def __init__(
        self, settings: Settings, topic: str, *, count: int, seed: int, variant: str = "", group: str = ""
    ) -> None:
        self._group = group
        self._command = [sys.executable, "-m", "tests.ingest.zombies", variant]
        self._env = ENV | {
            TOPIC: topic,
            "FEATURESTORE_PROJECT": "tests.ingest.zombies:PROJECT",
            "FEATURESTORE_DATA_DIR": str(settings.data_dir),
            "FEATURESTORE_KAFKA_BROKERS": settings.kafka.brokers,
            "FEATURESTORE_KAFKA_CLIENT_SESSION_TIMEOUT_MS": "6000",
            "FEATURESTORE_INGEST_BATCH_AGE_S": "0.2",
            "FEATURESTORE_INGEST_BATCH_ROWS": "2000",
            "FEATURESTORE_INGEST_DISK_RESERVE_BYTES": "0",
            "PYTHONFAULTHANDLER": "1",
        }
        self._logs = settings.data_dir / "logs"
        self._logs.mkdir()
        self._random = random.Random(seed)
        self._alive = [self._start() for _ in range(count)]
        self.kills = 0

    def _start(self) -> subprocess.Popen[bytes]:
        env = self._env | {"FEATURESTORE_KAFKA_GROUP": self._group or f"zombie-{uuid.uuid4().hex}"}
        with (self._logs / "starting").open("wb") as log:
            process = subprocess.Popen(self._command, env=env, stderr=log)
        (self._logs / "starting").rename(self._log_of(process))
        return process

    def _log_of(self, process: subprocess.Popen[bytes]) -> Path:
        return self._logs / f"{process.pid}.log"

    def kill_one(self) -> None:
        """Kill -9 one of them, whatever it is doing, and start another."""
        victim = self._random.randrange(len(self._alive))
        self._alive[victim].kill()
        self._alive[victim].wait(10)
        self._alive[victim] = self._start()
        self.kills += 1

    def freeze_one(self, for_s: float) -> None:
        """Stop one of them, whatever it is doing, and let it go on later as if nothing had happened."""
        victim = self._alive[self._random.randrange(len(self._alive))]
        victim.send_signal(signal.SIGSTOP)
        threading.Event().wait(for_s)
        victim.send_signal(signal.SIGCONT)

    def stop(self) -> list[int]:
        """End them as a supervisor does; return their exit codes."""
        for process in self._alive:
            process.send_signal(signal.SIGTERM)
        return [self._ended(process) for process in self._alive]

    def _ended(self, process: subprocess.Popen[bytes]) -> int:
        try:
            return process.wait(30)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # it writes down where its threads are
            process.wait(10)
            pytest.fail(f"a daemon did not end: {self._log_of(process).read_text()[-6_000:]}")

    def story(self) -> str:
        """What those that are there have said last, and the exit codes of those that have ended by themselves."""
        ends = ((one.pid, one.poll(), self._log_of(one).read_text()[-3_000:]) for one in self._alive)
        return "\n".join(f"daemon {pid}, {'running' if code is None else code}:\n{said}" for pid, code, said in ends)

    @property
    def fenced(self) -> int:
        return self.told("another writer has landed")

    def told(self, what: str) -> int:
        """How often they have said so."""
        return sum(log.read_text().count(what) for log in self._logs.iterdir())


@contextmanager
def zombies(
    settings: Settings, topic: str, *, count: int, seed: int, variant: str = "", group: str = ""
) -> Generator[Zombies]:
    running = Zombies(settings, topic, count=count, seed=seed, variant=variant, group=group)
    try:
        yield running
    except AssertionError as error:
        error.add_note(running.story())
        raise
    finally:
        running.stop()
    assert variant or running.told(TOO_EARLY) == 0 < running.told(IN_TIME)


def patiently(holds: Callable[[], bool], within_s: float = 90.0) -> None:
    """Wait until it holds, looking seldom: on a small machine the looking itself would be in the way."""
    deadline, never = time.monotonic() + within_s, threading.Event()
    while not holds():
        assert time.monotonic() < deadline, f"not so within {within_s:g} s"
        never.wait(0.25)


@dataclass(slots=True)
class Audit:
    """What lies in the chains of a landing zone, file by file; the zone's own reading of it is not asked."""

    rows: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])  # (partition, offset) → n
    dead: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    absent: int = 0
    twice: int = 0  # offsets that lie in more than one place
    tails: Counter[int] = field(default_factory=Counter[int])  # end of the last file, by partition


def landed_files(settings: Settings, source: str = "source_0") -> Iterator[tuple[int, Batch]]:
    """Every file of every chain with its partition, by its name, whether the zone believes it or not."""
    storage = open_storage(settings)
    for generation in storage.directories(source):
        for partition in storage.directories(f"{source}/{generation}"):
            chain = f"{source}/{generation}/{partition}"
            for name in sorted(filter(_BATCH_FILE.fullmatch, storage.names(chain))):
                yield int(partition.removeprefix("partition=")), read_batch(storage, f"{chain}/{name}")


def audit(settings: Settings, source: str = "source_0") -> Audit:
    """Read every file of every chain."""
    found, landing = Audit(), LandingZone.of(settings)
    for partition, batch in landed_files(settings, source):
        for row in landing.read(batch).to_pylist():
            place = (partition, row["sequence"])
            found.twice += place in found.rows or place in found.dead
            found.rows[place] = row["n"]
        for place in ((partition, letter.sequence) for letter in landing.dead_letters_of(batch)):
            found.twice += place in found.rows or place in found.dead
            found.dead.add(place)
        found.absent += batch.absent_rows
        found.tails[partition] = max(found.tails[partition], batch.end)
    return found


def tails(settings: Settings, source: str = "source_0") -> Counter[int]:
    """The end of the last file by partition, from the footers alone."""
    found: Counter[int] = Counter()
    storage = open_storage(settings)
    for generation in storage.directories(source):
        for partition in storage.directories(f"{source}/{generation}"):
            chain = f"{source}/{generation}/{partition}"
            if names := sorted(filter(_BATCH_FILE.fullmatch, storage.names(chain))):
                number = int(partition.removeprefix("partition="))
                found[number] = max(found[number], read_batch(storage, f"{chain}/{names[-1]}").end)
    return found


def rename(self: DiskStorage, file: BinaryIO, path: str) -> bool:
    """Instead of the exclusive create: replaces what is there."""
    file.flush()
    os.fsync(file.fileno())
    Path(file.name).replace(self.root / path)
    fsync_directory((self.root / path).parent)
    return True


def watched(settings: Settings) -> None:
    """Every daemon of this process is."""
    durable, start = Durable(pytest.MonkeyPatch()), KafkaDaemon.start

    def start_watched(self: KafkaDaemon) -> None:
        start(self)
        Witness(self, durable, settings.landing_dir)

    KafkaDaemon.start = start_watched


if __name__ == "__main__":
    configure("INFO")
    settings = Settings.from_env(ENV)
    if sys.argv[1] == "rename":
        DiskStorage.create = rename
    else:
        watched(settings)
    sys.exit(main(settings))
