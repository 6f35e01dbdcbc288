"""deploy/prometheus: rules that fire and that stay silent, and a configuration that finds every process."""

import subprocess
from pathlib import Path

import pytest
import yaml

from featurestore_cli.stack.prometheus import configuration

DIRECTORY = Path(__file__).parents[2] / "deploy" / "prometheus"
ALERTS = [
    rule
    for group in yaml.safe_load((DIRECTORY / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
]


@pytest.mark.parametrize("alert", ALERTS, ids=[rule["alert"] for rule in ALERTS])
def test_each_alert_says_what_to_do_and_is_tried_both_ways(alert: dict[str, dict[str, str]]) -> None:
    assert set(alert["annotations"]) == {"summary", "action"}
    assert alert["labels"]["severity"] in {"page", "ticket", "info"}
    scenarios = yaml.safe_load((DIRECTORY / "rules_test.yml").read_text())["tests"]
    tried = {one["name"]: bool(one["promql_expr_test"][0]["exp_samples"]) for one in scenarios}
    assert tried[f"{alert['alert']} fires"] is True
    assert tried[f"{alert['alert']} is silent"] is False


@pytest.mark.system
@pytest.mark.parametrize(
    "command",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "rules.yml"),
        ("test", "rules", "rules_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_agrees(command: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *command], cwd=DIRECTORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.system
def test_control_promtool_notices_an_alert_that_does_not_fire(tmp_path: Path) -> None:
    rules = (DIRECTORY / "rules.yml").read_text()
    (tmp_path / "rules.yml").write_text(rules.replace("fs_parked_batches > 0", "fs_parked_batches > 1"))
    (tmp_path / "rules_test.yml").write_text((DIRECTORY / "rules_test.yml").read_text())
    done = subprocess.run(
        ["promtool", "test", "rules", "rules_test.yml"], cwd=tmp_path, capture_output=True, timeout=60
    )
    assert done.returncode == 1


def test_the_platform_scrapes_the_ports_that_it_chose() -> None:
    config = configuration({"database": 1234, "exporter": 1235, "kafka": 0})
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    assert targets == {"database": ["127.0.0.1:1234"], "exporter": ["127.0.0.1:1235"]}
    assert all(Path(file).exists() for file in config["rule_files"])
