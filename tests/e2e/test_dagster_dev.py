"""`dagster dev` as a newcomer types it: it loads while every service is down, and says so instead of failing."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.platform import TREE, Platform, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

ASSETS = "{assetNodes{assetKey{path}}}"


def ask(port: int, query: str) -> dict[str, object]:
    """GraphQL of the webserver; empty while it does not answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql", json.dumps({"query": query}).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.loads(reply.read())["data"]
    except OSError:
        return {}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_it_loads_with_every_service_down(tmp_path: Path) -> None:
    nothing = {"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0", "KAFKA_BROKERS": f"127.0.0.1:{free_port()}"}
    platform, port = Platform(tmp_path / "data", nothing), free_port()
    log = tmp_path / "data" / "logs" / "dev.log"
    log.parent.mkdir(parents=True)
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text((TREE / "dagster.yaml").read_text())
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("dagster")), "dev", "--port", str(port)],
            cwd=TREE,
            env={**platform.env, "DAGSTER_HOME": str(home)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until(lambda: bool(ask(port, ASSETS).get("assetNodes")), 90, "the assets are there", platform)
            wait_until(lambda: "Redis does not answer" in log.read_text(), 60, "the sensor says what is down", platform)
            assert "Traceback" not in log.read_text()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
