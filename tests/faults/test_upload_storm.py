"""The upload service, killed, stopped and frozen while files keep coming: P1 and P2 hold, nothing is left behind.

For hours in `make soak`.
"""

import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from featurestore.errors import TerminalError, TransientError
from featurestore.landing.zone import LandingZone
from featurestore.settings import Settings
from ingest.client import UploadReport, send_events, upload
from tests.corpus.bad_files import HEADER, LINE, REFUSED, ndjson, parquet
from tests.ingest.grpc.conftest import serving, with_grpc
from tests.ingest.grpc.conftest import settings as settings
from tests.ingest.grpc.dying import leftovers
from tests.services import ENV, Ports

SENDERS, SILENCE_S, ATTEMPTS, GROWTH_BYTES = 3, 2.0, 20, 64 << 20
LATE = (".csv", HEADER + LINE * 20_000 + b"1" * (5 << 20), "longer than")  # refused after parts were written
FAULTS = [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM]


class Sender:
    """Sends files and batches of rows numbered from 0, some of them bad, and keeps what was acknowledged of each."""

    def __init__(self, name: str, directory: Path, address: str, seed: int) -> None:
        self._name, self._directory, self._address, self._chance = name, directory, address, random.Random(seed)
        self.acknowledged: dict[str, tuple[int, set[int]]] = {}  # by upload: its rows, and the bad ones of them
        self.met: Counter[str] = Counter()  # what was sent, and what befell it

    def send(self) -> None:
        how = self._chance.choice([".csv", ".ndjson", ".parquet", "events", "refused"])
        self.met[how] += 1
        upload_id = f"{self._name}-{self.met.total()}"
        if how == "refused":
            self._send_refused(upload_id, *self._chance.choice([*REFUSED.values(), LATE]))
            return
        rows = self._chance.randint(1, 5_000 if how == "events" else 50_000)
        bad = {self._chance.randrange(rows) for _ in range(self._chance.choice([0, 3, 50]))}
        path = self._directory / f"{self._name}{how}"
        write(path, rows, bad)
        send = self._send_events if how == "events" else self._upload
        for _ in range(self._chance.choice([1, 1, 1, 2])):  # sent again, it lands once
            report = send(path, upload_id)
            assert (report.rows, report.dead_rows) == (rows - len(bad), len(bad))
        self.acknowledged[upload_id] = rows, bad

    def _send_refused(self, upload_id: str, suffix: str, content: bytes | Callable[[Path], None], reason: str) -> None:
        path = self._directory / f"{self._name}-refused{suffix}"
        path.write_bytes(content) if isinstance(content, bytes) else content(path)
        with pytest.raises(TerminalError, match=reason):
            self._upload(path, upload_id)

    def _upload(self, path: Path, upload_id: str) -> UploadReport:
        return self._patiently(
            lambda: upload(path, "profiles", address=self._address, upload_id=upload_id, progress=self._trouble)
        )

    def _send_events(self, path: Path, batch_id: str) -> UploadReport:
        records = path.read_bytes().splitlines()
        return self._patiently(lambda: send_events(records, "profiles", address=self._address, batch_id=batch_id))

    def _trouble(self, done_bytes: int, total_bytes: int) -> None:
        """Between two chunks: often nothing; or longer silence than the service allows, or the end of the stream."""
        what = self._chance.choice(["nothing", "nothing", "nothing", "slow", "cut"]) if done_bytes < total_bytes else ""
        self.met[what] += 1
        if what == "slow":
            threading.Event().wait(2 * SILENCE_S)
        if what == "cut":
            raise ConnectionResetError

    def _patiently(self, send: Callable[[], UploadReport]) -> UploadReport:
        for _ in range(ATTEMPTS):
            try:
                return send()
            except TransientError:
                self.met["given up"] += 1
        return send()


def write(path: Path, rows: int, bad: set[int]) -> None:
    """A file in the format of its name."""
    if path.suffix == ".parquet":
        incomes = pa.array([None if row in bad else 10.0 for row in range(rows)], pa.float64())
        parquet(path, rows, user_id=pa.array(range(rows)), income=incomes)
    elif path.suffix == ".csv":
        lines = (b"bad\n" if row in bad else LINE.replace(b"1", b"%d" % row, 1) for row in range(rows))
        path.write_bytes(HEADER + b"".join(lines))
    else:
        path.write_bytes(b"\n".join(b"bad" if row in bad else ndjson(user_id=row) for row in range(rows)))


def start(settings: Settings) -> "subprocess.Popen[bytes]":
    env = ENV | {
        "FEATURESTORE_PROJECT": "tests.ingest.grpc.conftest:PROJECT",
        "FEATURESTORE_DATA_DIR": str(settings.data_dir),
        "FEATURESTORE_GRPC_ADDRESS": settings.grpc.address,
        "FEATURESTORE_GRPC_SILENCE_S": str(SILENCE_S),
        "FEATURESTORE_GRPC_PART_ROWS": "10000",
        "FEATURESTORE_INGEST_DISK_RESERVE_BYTES": "0",
    }
    return subprocess.Popen([sys.executable, "-m", "ingest", "grpc"], env=env, stderr=subprocess.DEVNULL)


def storm(settings: Settings, directory: Path, *, seed: int, for_s: float, faults: int) -> tuple[list[Sender], int]:
    """At least so many faults, for at least half of so long; then only what senders do; then the audit.

    Returns by how many bytes the service's memory grew in the last third, when there were no faults.
    """
    chance, stopping, ports = random.Random(seed), threading.Event(), Ports()
    settings = with_grpc(settings, address=f"127.0.0.1:{ports.take()}")
    names = [f"sender-{number}" for number in range(SENDERS)]
    senders = [Sender(name, directory, settings.grpc.address, chance.randrange(2**32)) for name in names]

    def go_on(sender: Sender) -> None:
        while not stopping.wait(0.1):
            sender.send()

    process, began_s, done, resident = start(settings), time.monotonic(), 0, [0]
    with ThreadPoolExecutor(SENDERS) as pool:
        sending = [pool.submit(go_on, sender) for sender in senders]
        try:
            while (done < faults or time.monotonic() < began_s + for_s / 2) and not one_ended(
                sending, chance.uniform(1, 4)
            ):
                fault = FAULTS[done] if done < len(FAULTS) else chance.choice(FAULTS)
                process.send_signal(fault)
                if fault == signal.SIGSTOP:
                    threading.Event().wait(SILENCE_S)
                    process.send_signal(signal.SIGCONT)
                else:
                    process.wait(60)
                    process = start(settings)
                done += 1
            while time.monotonic() < began_s + for_s and not one_ended(sending, 0.5):
                resident.append(psutil.Process(process.pid).memory_info().rss)
        finally:
            stopping.set()
            wait(sending)
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        for one in sending:
            one.result()
    audit(settings, {name: what for sender in senders for name, what in sender.acknowledged.items()})
    third = -(-len(resident) // 3)
    return senders, max(resident[-third:]) - max(resident[third:-third], default=0)


def one_ended(sending: list[Future[None]], within_s: float) -> bool:
    """Whether a sender has failed."""
    return bool(wait(sending, within_s, FIRST_COMPLETED).done)


def audit(settings: Settings, acknowledged: dict[str, tuple[int, set[int]]]) -> None:
    """Every acknowledged row has landed once, or is a dead letter once; there is nothing else."""
    with serving(with_grpc(settings, expire_s=0.0)):
        pass  # it sweeps when it begins
    zone, landed = LandingZone.of(settings), set[str]()
    for upload_landing in zone.uploads("profiles"):
        manifest = upload_landing.manifest()
        assert manifest is not None
        if manifest.state == "landed":
            rows, bad = acknowledged[manifest.upload_id]
            batches = manifest.batches(upload_landing.chain)
            found = pa.concat_tables([zone.read(batch) for batch in batches])
            assert found["user_id"].to_pylist() == found["sequence"].to_pylist() == sorted(set(range(rows)) - bad)
            assert [letter.sequence for letter in zone.dead_letters_of(batches[0])] == sorted(bad)
            landed.add(manifest.upload_id)
    assert landed == acknowledged.keys()
    assert leftovers(settings.data_dir, zone) == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_service_that_is_killed_frozen_and_stopped(settings: Settings, tmp_path: Path) -> None:
    senders, _ = storm(settings, tmp_path, seed=2, for_s=0, faults=5)
    assert all(sender.acknowledged for sender in senders)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_for_as_long_as_one_likes(settings: Settings, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201  # to do it again
    senders, grown_bytes = storm(settings, tmp_path, seed=seed, for_s=float(ENV.get("SOAK_S", "60")), faults=3)
    met = sum((sender.met for sender in senders), Counter[str]())
    print(met, f"memory grew by {grown_bytes >> 20} MiB")  # noqa: T201
    assert all(met[what] for what in (".csv", ".ndjson", ".parquet", "events", "refused", "slow", "cut"))
    assert grown_bytes < GROWTH_BYTES
