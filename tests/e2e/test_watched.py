"""A running platform, from outside: its commands tell, its pages show, its metrics count, and it gives no secret away.

One platform for all of it: starting one takes longer than most of what is asked. With SCREENSHOTS=docs/images the pages
are kept as pictures.
"""

import http.client
import json
import re
import secrets
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from playwright.sync_api import Page, expect, sync_playwright

from featurestore.environment import read_env_file
from featurestore.errors import TerminalError
from featurestore_cli.stack.state import Home
from ingest.client import send_events
from tests.e2e.platform import TREE, Platform, wait_until
from tests.services import ENV

pytestmark = [pytest.mark.e2e, pytest.mark.services, pytest.mark.timeout(400)]

USER = 4_711
DASHBOARDS = sorted((TREE / "deploy" / "grafana" / "dashboards").iterdir())
# Where secrets are kept for those who need them; nobody else can read these.
KEPT = {"platform.env", "redis/redis.conf"}
CHROMIUM = "/usr/bin/chromium"  # Debian's package
WAY = ["sources", "raw", "features", "online", "models"]
PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """With secrets of its own and a run a second; whatever a test leaves running is stopped."""
    given = {
        "GRPC_TOKEN": secrets.token_hex(16),
        "SERVER_TOKEN": secrets.token_hex(16),
        "DAGSTER_ALERT_WEBHOOK": f"http://127.0.0.1:9/{secrets.token_hex(16)}",
        "DAGSTER_RUN_INTERVAL_S": 1,
    }
    with Platform(tmp_path_factory.mktemp("watched") / "data", given).running() as platform:
        yield platform


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


@pytest.fixture(scope="module")
def page(watched: Platform) -> Iterator[Page]:
    state = Home(watched.data_dir).state()
    assert state
    record = {"user_id": 5_000, "as_of": datetime.now(UTC).isoformat(), "income": 2.0, "debt": 1.0, "age_years": 30}
    settings = watched.settings.grpc
    send_events([record], "profiles", address=settings.address, token=settings.token)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1600, "height": 1000}, base_url=state.dagster_url)
        opened.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        yield opened
        browser.close()


def keep(page: Page, name: str) -> None:
    if "SCREENSHOTS" in ENV:
        page.screenshot(path=Path(ENV["SCREENSHOTS"], f"{name}.png"))


@pytest.mark.system
def test_the_lineage_goes_the_way_of_the_data(page: Page) -> None:
    page.goto("/asset-groups")
    places = []
    for group in WAY:
        node = page.locator("svg").get_by_text(group, exact=True).first
        node.wait_for()
        box = node.bounding_box()
        assert box
        places.append(box["x"])
    assert places == sorted(places)
    keep(page, "lineage")


@pytest.mark.system
def test_a_view_stands_among_its_neighbours(page: Page) -> None:
    page.goto("/assets/features/credit_profile?view=lineage&lineageScope=neighbors")
    graph = page.locator("svg")
    for asset in ("profiles", "credit_profile", "rebuild"):
        graph.get_by_text(asset, exact=True).first.wait_for()
    keep(page, "neighbours")


@pytest.mark.system
def test_an_hour_shows_its_rows(page: Page, watched: Platform) -> None:
    hour = hours(watched)[-1]
    page.goto(f"/assets/features/credit_profile?view=partitions&partition={hour}")
    expect(page.get_by_text("rows_in", exact=True)).to_be_visible()
    expect(page.get_by_text("quarantined", exact=True).first).to_be_visible()
    expect(page.get_by_text(re.compile(r"age_years +[▁▂▃▄▅▆▇█]")).first).to_be_visible()  # without a click
    keep(page, "hour")


@pytest.mark.system
def test_a_backfill_is_started_by_clicking_and_changes_nothing(page: Page, watched: Platform) -> None:
    before = ledger(watched)
    [*_, hour] = hours(watched)
    earlier = (datetime.strptime(hour, "%Y-%m-%d-%H:%M") - timedelta(hours=1)).strftime("%Y-%m-%d-%H:%M")  # noqa: DTZ007
    page.goto("/assets/features/credit_profile?view=partitions")
    page.get_by_role("button", name="Materialize…").click()
    dialog = page.get_by_role("dialog")
    partitions = dialog.get_by_role("textbox").first
    partitions.fill(f"[{earlier}...{hour}]")
    partitions.press("Enter")
    dialog.get_by_text("2 partitions").first.wait_for()
    dialog.get_by_role("button", name="Launch backfill").click()
    wait_until(lambda: statuses(watched) == [BulkActionStatus.COMPLETED_SUCCESS], 150, "the backfill ends", watched)
    assert before <= ledger(watched)


def statuses(watched: Platform) -> list[BulkActionStatus]:
    return [backfill.status for backfill in backfills(watched)]


def backfills(watched: Platform) -> list[PartitionBackfill]:
    with dg.DagsterInstance.from_config(str(watched.settings.dagster_home)) as instance:
        return list(instance.get_backfills())


def hours(watched: Platform) -> list[str]:
    """The materialized hours of the view, at least one."""
    found: list[str] = []

    def materialized() -> bool:
        with dg.DagsterInstance.from_config(str(watched.settings.dagster_home)) as instance:
            found[:] = sorted(instance.get_materialized_partitions(dg.AssetKey(["features", "credit_profile"])))
        return bool(found)

    wait_until(materialized, 120, "an hour is materialized", watched)
    return found


def ledger(watched: Platform) -> set[tuple[object, ...]]:
    rows = watched.sql("SELECT batch_id, commit_seq, logged FROM applied WHERE target = 'credit_profile@v1'")
    return {tuple(row.values()) for row in rows}


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
