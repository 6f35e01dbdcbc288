"""deploy/compose.yaml: the same versions as `up` starts, open to this machine only."""

import tomllib
from importlib.resources import files
from pathlib import Path

import yaml

from featurestore_cli.stack.downloads import AZURITE, KAFKA_LOCK

SERVICES = yaml.safe_load(Path(__file__).parents[2].joinpath("deploy", "compose.yaml").read_text())["services"]


def test_the_versions_are_those_that_up_starts() -> None:
    lock = tomllib.loads(files("featurestore_cli.stack").joinpath(KAFKA_LOCK).read_text())
    kafka = next(jar["version"] for jar in lock["dependencies"] if jar["artifactId"] == "kafka_2.13")
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{kafka}"
    assert f"--package={AZURITE.replace('-', '@')}" in SERVICES["azurite"]["command"]


def test_every_port_is_bound_to_loopback() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert "--web.listen-address=127.0.0.1:9090" in SERVICES["prometheus"]["command"]
    assert SERVICES["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
