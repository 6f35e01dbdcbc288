"""Prometheus as a part of the platform, where the program is there: the rules of deploy/prometheus, our own ports."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from featurestore_cli.stack.ports import Ports
from featurestore_cli.stack.service import Program, get_http
from featurestore_cli.stack.unit import GENERATOR, Unit

NAME = "prometheus"
DEFAULT_PORT = 9090
KEPT = "15d"


def plan_prometheus(
    home: Path, watched: Sequence[Unit], env: Mapping[str, str], *, previous_port: int, ports: Ports
) -> list[Unit]:
    """A unit that scrapes every process with metrics; none where there is no program of that name on the PATH."""
    binary = shutil.which(NAME, path=env.get("PATH"))
    if binary is None:
        return []
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = home / "prometheus.yml"
    config.write_text(yaml.safe_dump(configuration({unit.name: unit.metrics_port for unit in watched})))
    port = ports.take(previous_port, DEFAULT_PORT)
    program = Program(
        name=NAME,
        command=(
            binary,
            f"--config.file={config}",
            f"--storage.tsdb.path={home / 'data'}",
            f"--storage.tsdb.retention.time={KEPT}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ),
        answers=lambda: get_http(port, "/-/ready")[0] == 200,
        address=f"http://127.0.0.1:{port}",
        ports=(port,),
    )
    return [Unit(program=program, wave=GENERATOR)]


def configuration(metrics_ports: Mapping[str, int]) -> dict[str, Any]:
    """deploy/prometheus/prometheus.yml with the ports that there are; jobs without one are left out."""
    directory = _shipped()
    config: dict[str, Any] = yaml.safe_load((directory / "prometheus.yml").read_text())
    config["rule_files"] = [str(directory / name) for name in config["rule_files"]]
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    config["scrape_configs"] = [
        {**jobs[name], "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        for name, port in metrics_ports.items()
        if port and name in jobs
    ]
    return config


def _shipped() -> Path:
    """In the repository, or in the installed package (see pyproject.toml)."""
    here = Path(__file__)
    installed = here.with_name("deploy") / "prometheus"
    return installed if installed.exists() else here.parents[2] / "deploy" / "prometheus"
