"""A running platform can be watched and asked, and gives no secret away."""

import http.client
import json
import re
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from featurestore.environment import read_env_file
from featurestore.errors import TerminalError
from ingest.client import send_events
from tests.e2e.platform import TREE, Platform, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.services, pytest.mark.timeout(400)]

USER = 4_711
DASHBOARDS = sorted((TREE / "deploy" / "grafana" / "dashboards").iterdir())
# Where secrets are kept for those who need them; nobody else can read these.
KEPT = {"platform.env", "redis/redis.conf"}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def test_an_uploaded_record_is_followed_to_its_value(watched: Platform) -> None:
    record = {"user_id": USER, "as_of": now(), "income": 200.0, "debt": 50.0, "age_years": 30}
    said = watched.said("follow", "profiles", json.dumps(record), within_s=200)
    assert [line.split()[2] for line in said.splitlines()] == ["upload", "landed", "logged", "run", "online"]
    assert "debt_to_income_ratio = 0.25, age_years = 30" in said
    times = [float(line.split()[0]) for line in said.splitlines()]
    assert times == sorted(times)


def test_an_event_is_followed_to_its_views(watched: Platform) -> None:
    record = {"user_id": USER, "timestamp": now(), "action": "click"}
    said = watched.said("follow", "user_events", json.dumps(record), within_s=200)
    assert re.search(r"kafka +partition 0, offset \d+\n.*landed +user_events/gen=.*\n.*logged +user_activity v1", said)
    assert re.search(r"run +[0-9a-f]{8}  (started|success)  http://127.0.0.1:\d+/runs/", said)


def test_a_record_that_cannot_land_says_why(watched: Platform) -> None:
    done = watched.command("follow", "user_events", json.dumps({"user_id": USER, "action": "click"}))
    assert (done.returncode, done.stderr) == (1, "it is a dead letter: timestamp: missing\n")


def test_a_value_is_explained_from_its_definition_to_redis(watched: Platform) -> None:
    said = watched.said("explain", "user", str(USER), "debt_to_income_ratio")
    first, *lines = [line.split(maxsplit=1) for line in said.strip().splitlines()]
    assert first[0] == "0.25"
    assert "debt / nullif(income, 0)" in first[1]
    told = dict(lines)
    assert "known" in told["created_at"]
    assert told["source"].startswith("profiles, upload follow-")
    assert told["batch"].endswith("every byte checked")
    assert "/runs/" in told["run"]
    assert told["online"] == "same value"
    assert watched.command("explain", "user", "no-such-user", "age_years").returncode == 1


def panels() -> Iterator[tuple[str, str]]:
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield f"{path.stem}: {panel['title']}", target["expr"].replace("$__rate_interval", "1m")


@pytest.mark.system
def test_every_panel_shows_something(watched: Platform) -> None:
    """Asked of the Prometheus that `up` started; an expression with a wrong name is answered with nothing."""
    assert shutil.which("prometheus"), "Debian's package prometheus is needed"
    processes = json.loads(watched.said("status", "--json"))["processes"]
    [url] = [one["address"] for one in processes if one["name"] == "prometheus"]

    def empty() -> list[str]:
        return [f"{title}: {expression}" for title, expression in panels() if not ask(url, expression)]

    wait_until(lambda: not empty(), 150, "every panel has a series", watched)
    assert ask(url, "fs_no_such_metric") == []


def ask(url: str, expression: str) -> list[Any]:
    query = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"{url}/api/v1/query?{query}", timeout=10) as reply:
        return json.load(reply)["data"]["result"]


def test_no_secret_is_anywhere_but_where_it_is_kept(watched: Platform) -> None:
    with pytest.raises(TerminalError):
        send_events([{"user_id": 1}], "profiles", address=watched.settings.grpc.address, token="wrong")
    found = secrets_of(watched)
    assert len(found) >= 5
    told = [watched.said("status", "--json"), watched.command("doctor").stdout, *metrics(watched)]
    told += [" ".join(process.cmdline()) for process in watched.processes()]
    for name, secret in found.items():
        assert not [text for text in told if secret in text], name
        assert files_with(secret.encode(), watched.data_dir) <= KEPT, name


def test_control_a_secret_that_is_written_is_found(watched: Platform) -> None:
    [secret, *_] = secrets_of(watched).values()
    (watched.data_dir / "logs" / "careless.log").write_text(f"connecting with {secret}")
    assert files_with(secret.encode(), watched.data_dir) - KEPT == {"logs/careless.log"}


def secrets_of(watched: Platform) -> dict[str, str]:
    """What was given, and what `up` made up: the password of Redis and the key of Azurite."""
    made = read_env_file(watched.data_dir / "platform.env")
    password = urllib.parse.urlsplit(made["FEATURESTORE_REDIS_URL"]).password
    key = re.search(r"AccountKey=([^;]+)", made["FEATURESTORE_AZURE_CONNECTION_STRING"])
    assert password
    assert key
    given = {n: str(v).rpartition("/")[2] for n, v in watched.given.items() if n.endswith(("TOKEN", "WEBHOOK"))}
    return {**given, "redis": password, "azure": key[1]}


def files_with(secret: bytes, directory: Path) -> set[str]:
    paths = (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(directory)) for path in paths if secret in path.read_bytes()}


def metrics(watched: Platform) -> Iterator[str]:
    for one in json.loads(watched.said("status", "--json"))["processes"]:
        if one["metrics_port"]:
            connection = http.client.HTTPConnection("127.0.0.1", one["metrics_port"], timeout=10)
            connection.request("GET", "/metrics")
            yield connection.getresponse().read().decode()
            connection.close()
