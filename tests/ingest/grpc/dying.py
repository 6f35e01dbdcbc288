"""An upload that is killed at its steps in turn, and taken up again: what was said before, and what is there after.

Run as a program, which forks: python -m tests.ingest.grpc.dying DIRECTORY STRIDE [VARIANT]. Prints a line of JSON for
each step; a stride of 5 tries every fifth. The variants are negative controls: "early" says that a file has landed
before it has, "anew" takes it up under another id.
"""

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import google_crc32c
from prometheus_client import CollectorRegistry

from featurestore.landing.disk import DiskStorage
from featurestore.landing.uploads import MANIFEST
from featurestore.landing.zone import LandingZone
from featurestore.settings import GrpcSettings, IngestSettings, Settings
from ingest.grpc.events import Events
from ingest.grpc.spool import Announced
from ingest.grpc.uploads import Status, Uploads
from ingest.metrics import IngestMetrics
from ingest.pb import ingest_pb2 as pb
from tests.corpus.bad_files import HEADER, LINE, ndjson
from tests.ingest.grpc.conftest import PROJECT

ROWS, PART_ROWS = 100, 40
FILE = HEADER + LINE * ROWS + b"bad\n"
HALF = len(FILE) // 2
RECORDS = [*[ndjson()] * 3, b"bad"]
STEPS = ("fsync", "link", "unlink", "mkdir", "pwrite", "rename", "rmdir")  # of the operating system


@dataclass
class Told:
    """What a sender was told before the end: bytes that are kept, and whether all has landed."""

    kept_bytes: int = 0
    file_landed: bool = False
    events_landed: bool = False


@dataclass(frozen=True)
class Found:
    """What a run that was killed before step `step` leaves, and what a run after it makes of it."""

    step: int
    told: dict[str, Any]
    kept_bytes: int  # after the restart
    visible: tuple[int, ...]  # rows of each source's landed chains, before the restart
    landed: tuple[int, ...]  # and after it
    dead: int
    leftovers: int  # files and directories that nothing names


class Sender:
    """Sends one file and one batch of events."""

    def __init__(self, data_dir: Path, upload_id: str) -> None:
        settings = Settings(
            data_dir=data_dir, grpc=GrpcSettings(part_rows=PART_ROWS), ingest=IngestSettings(disk_reserve_bytes=0)
        )
        zone, metrics = (
            LandingZone(DiskStorage(settings.landing_dir)),
            IngestMetrics(CollectorRegistry()),
        )
        self.uploads = Uploads(settings, PROJECT, zone, metrics)
        self._events = Events(settings, PROJECT, zone, metrics, self.uploads)
        self._id = upload_id

    def start(self) -> Status:
        digest = hashlib.sha256(FILE).hexdigest()
        return self.uploads.start(Announced("profiles", self._id, "csv", len(FILE), digest))

    def send(self, start: int, end: int) -> Status:
        data = FILE[start:end]
        return self.uploads.receive(
            "profiles", self._id, [pb.Chunk(offset=start, data=data, crc32c=google_crc32c.value(data))]
        )

    def send_events(self) -> None:
        self._events.land("profiles", "events", RECORDS)


def first_run(data_dir: Path, tell: Callable[[Told], None], variant: str) -> None:
    sender, told = Sender(data_dir, "file"), Told()
    sender.start()
    told.kept_bytes = sender.send(0, HALF).committed_bytes
    tell(told)
    if variant == "early":
        told.file_landed = True
        tell(told)
    told.file_landed = sender.send(HALF, len(FILE)).state == "landed"
    tell(told)
    sender.send_events()
    told.events_landed = True
    tell(told)


def second_run(data_dir: Path, variant: str) -> int:
    """As after a restart: sweep, then the sender asks how far it was, and goes on. Returns what was kept."""
    sender = Sender(data_dir, "file" if variant != "anew" else "other")
    sender.uploads.sweep()
    status = sender.start()
    kept_bytes = len(FILE) if status.state == "landed" else status.committed_bytes
    if status.state == "open":
        sender.send(kept_bytes, len(FILE))
    sender.send_events()
    sender.uploads.sweep()
    return kept_bytes


def dying_before(step: int) -> None:
    """Be killed, by a signal that nothing can catch, instead of taking the step."""
    left = step

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))


def killed(data_dir: Path, step: int, variant: str) -> tuple[bool, Told]:
    """Whether a first run was killed, and what it had told."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        dying_before(step)
        first_run(data_dir, lambda told: os.write(write, json.dumps(asdict(told)).encode() + b"\n") and None, variant)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        lines = pipe.read().splitlines()
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status), Told(**json.loads(lines[-1])) if lines else Told()


def rows(zone: LandingZone) -> tuple[int, ...]:
    found: dict[str, int] = {}
    for batch in zone.batches("profiles"):
        found[batch.chain] = found.get(batch.chain, 0) + zone.read(batch).num_rows
    return tuple(sorted(found.values()))


def leftovers(data_dir: Path, zone: LandingZone) -> int:
    """Files and directories of uploads that no manifest names."""
    landing, named = data_dir / "landing", set[Path]()
    for upload in zone.uploads("profiles"):
        if decided := upload.manifest():
            names = ("", MANIFEST, decided.dead_letters, *(part.name for part in decided.parts))
            named |= {landing / upload.chain / name for name in names}
    return len({*(landing / "profiles").rglob("*"), *(data_dir / "uploads").rglob("*")} - named)


def fresh(data_dir: Path) -> LandingZone:
    return LandingZone(DiskStorage(data_dir / "landing"))


def main(directory: Path, stride: int, variant: str) -> None:
    step, was_killed = 1 - stride, True
    while was_killed:
        step += stride
        data_dir = directory / str(step)
        data_dir.mkdir(parents=True)
        was_killed, told = killed(data_dir, step, variant)
        visible = rows(fresh(data_dir))
        kept_bytes = second_run(data_dir, variant)
        zone = fresh(data_dir)
        found = Found(
            step=step,
            told=asdict(told),
            kept_bytes=kept_bytes,
            visible=visible,
            landed=rows(zone),
            dead=len(list(zone.dead_letters("profiles"))),
            leftovers=leftovers(data_dir, zone),
        )
        sys.stdout.write(json.dumps(asdict(found)) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *(sys.argv[3:] or [""]))
