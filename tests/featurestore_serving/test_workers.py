"""Several processes behind one port, started as users start them."""

import os
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest

from featurestore_cli.stack.ports import Ports
from featurestore_serving.pb import serving_pb2 as pb
from featurestore_serving.pb import serving_pb2_grpc as pb_grpc
from tests.featurestore_serving.platform import REFERENCE, ask
from tests.services import ENV, eventually

pytestmark = [pytest.mark.services, pytest.mark.slow]

BODY = b'{"features": ["clicks"], "keys": {"user_id": [7]}}'


@dataclass(frozen=True)
class Started:
    """Two workers, both ready, and the process that started them."""

    process: subprocess.Popen[bytes]
    port: int
    grpc_port: int
    metrics_port: int
    log: Path

    @property
    def is_ready(self) -> bool:
        """All of them, as the process that started them says."""
        try:
            return ask(self.metrics_port, "GET", "/health").json == {"state": "ready", "note": "2 workers"}
        except OSError:
            return False

    @property
    def children(self) -> Sequence[psutil.Process]:
        return psutil.Process(self.process.pid).children()


@contextmanager
def two_workers(url: str, data: Path) -> Generator[Started]:
    ports = Ports()
    port, grpc_port, metrics_port = ports.take(), ports.take(), ports.take()
    given = {
        "FEATURESTORE_DATA_DIR": str(data),
        "FEATURESTORE_PROJECT": REFERENCE,
        "FEATURESTORE_REDIS_URL": url,
        "FEATURESTORE_SERVER_ADDRESS": f"127.0.0.1:{port}",
        "FEATURESTORE_SERVER_GRPC_ADDRESS": f"127.0.0.1:{grpc_port}",
        "FEATURESTORE_METRICS_PORT": str(metrics_port),
        "FEATURESTORE_SERVER_WORKERS": "2",
        "FEATURESTORE_SERVER_DRAIN_S": "0.1",
        "FEATURESTORE_SERVER_MODEL_BYTES": "0",
    }
    log = data / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "featurestore_cli.main", "run", "server"], env={**ENV, **given}, stderr=out
        )
    started = Started(process, port, grpc_port, metrics_port, log)
    try:
        eventually(lambda: started.is_ready, within_s=60)
        yield started
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(30)


def assert_all_end(started: Started, end: int, code: int) -> None:
    everyone = started.children
    os.kill(started.process.pid, end)
    assert started.process.wait(30) == code
    _, alive = psutil.wait_procs(everyone, timeout=30)
    assert alive == []


def test_workers_share_the_ports_count_together_and_are_started_again(filled: str, data: Path) -> None:
    with two_workers(filled, data) as started:
        workers = [one for one in started.children if "spawn_main" in " ".join(one.cmdline())]
        assert len(workers) == 2
        for _ in range(20):
            assert ask(started.port, "POST", "/v1/features", BODY).json["rows"][0]["clicks"]["value"] == 7
        counted = ask(started.port, "GET", "/metrics").body.decode().splitlines()
        assert 'fs_server_requests_total{outcome="ANSWERED",transport="http"} 20.0' in counted
        with grpc.insecure_channel(f"127.0.0.1:{started.grpc_port}") as channel:
            column = pb.KeyColumn(integers=pb.Integers(values=[7]))
            asked = pb.GetFeaturesRequest(features=["clicks"], keys={"user_id": column})
            reply = pb_grpc.FeaturesStub(channel).GetFeatures(asked, timeout=10)
            assert list(reply.columns[0].integers.values) == [7]
        workers[0].kill()
        eventually(lambda: b"starting it again" in started.log.read_bytes(), within_s=30)
        eventually(lambda: started.is_ready, within_s=60)
        assert_all_end(started, signal.SIGTERM, 0)


def test_workers_end_with_the_process_that_started_them(filled: str, data: Path) -> None:
    with two_workers(filled, data) as started:
        assert_all_end(started, signal.SIGKILL, -signal.SIGKILL)
