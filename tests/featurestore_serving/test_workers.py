"""Several processes behind one port, started as users start them."""

import os
import signal
import subprocess
import sys
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


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_workers_share_the_ports_count_together_and_end_together(filled: str, data: Path, end: int) -> None:
    ports = Ports()
    port, grpc_port, metrics_port = ports.take(), ports.take(), ports.take()
    given = {
        "FEATURESTORE_DATA_DIR": str(data),
        "FEATURESTORE_PROJECT": REFERENCE,
        "FEATURESTORE_REDIS_URL": filled,
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
    try:
        eventually(lambda: are_ready(metrics_port), within_s=60)
        workers = [one for one in psutil.Process(process.pid).children() if "spawn_main" in " ".join(one.cmdline())]
        assert len(workers) == 2
        for _ in range(20):
            assert ask(port, "POST", "/v1/features", BODY).json["rows"][0]["clicks"]["value"] == 7
        counted = {line for line in metrics(port) if line.startswith('fs_server_requests_total{outcome="ANSWERED"')}
        assert 'fs_server_requests_total{outcome="ANSWERED",transport="http"} 20.0' in counted
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            column = pb.KeyColumn(integers=pb.Integers(values=[7]))
            asked = pb.GetFeaturesRequest(features=["clicks"], keys={"user_id": column})
            reply = pb_grpc.FeaturesStub(channel).GetFeatures(asked, timeout=10)
            assert list(reply.columns[0].integers.values) == [7]
        workers[0].kill()
        eventually(lambda: b"starting it again" in log.read_bytes(), within_s=30)
        eventually(lambda: are_ready(metrics_port), within_s=60)
        everyone = psutil.Process(process.pid).children()
        os.kill(process.pid, end)
        assert process.wait(30) == (0 if end == signal.SIGTERM else -end)
        _, alive = psutil.wait_procs(everyone, timeout=30)
        assert alive == []
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(30)


def are_ready(metrics_port: int) -> bool:
    """All of them, as the process that started them says."""
    try:
        return ask(metrics_port, "GET", "/health").json == {"state": "ready", "note": "2 workers"}
    except OSError:
        return False


def metrics(port: int) -> list[str]:
    return ask(port, "GET", "/metrics").body.decode().splitlines()
