"""The whole platform with the real services: data flows, adds up, stands still, stops, and goes on."""

import hashlib
import ipaddress
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psutil
import pytest
import redis

from featurestore.definitions.view import FeatureView
from featurestore.landing.zone import LandingZone
from featurestore.online.redis_store import RedisOnlineStore
from featurestore.settings import GeneratorSettings
from featurestore.store import Store, connect
from featurestore_cli.stack.state import Home
from featurestore_dagster.features.project import PROJECT
from featurestore_dagster.features.user import CREDIT_PROFILE, USER_ACTIVITY
from ingest.client import upload
from ingest.generator.ledger import Sent, read_ledger
from tests.e2e.platform import TREE, Platform, cpu_seconds, wait_until
from tests.windows import differing

pytestmark = [pytest.mark.e2e, pytest.mark.services, pytest.mark.timeout(600)]

EVENTS, FILES, USERS = 30_000, 4, 500
MAX_RUNS = 3  # dagster.yaml
IDLE_S = 60.0
TWICE = 987_654_321  # the user that is updated twice within the same millisecond


def readme_commands() -> list[str]:
    """The lines of the README's shell blocks, but for those that start, stop or watch."""
    blocks = re.findall(r"```sh\n(.*?)```", (TREE / "README.md").read_text(), re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    ours = [line for line in lines if line.startswith(("featurestore ", "dagster "))]
    return [line for line in ours if not re.search(r" up | -f | run |dagster dev", line)]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Started once for this file; whatever a test leaves running is stopped."""
    given = {
        "GENERATOR_EVENTS_PER_S": 2000,
        "GENERATOR_MAX_EVENTS": EVENTS,
        "GENERATOR_FILE_EVERY_S": 3,
        "GENERATOR_MAX_FILES": FILES,
        "GENERATOR_USERS": USERS,
        "GENERATOR_BAD_SHARE": 0.002,
        "INGEST_BATCH_AGE_S": 1,
        "DAGSTER_RUN_INTERVAL_S": 3,
    }
    with Platform(tmp_path_factory.mktemp("platform") / "data", given).running() as started:
        yield started


def accounted(platform: Platform) -> dict[str, dict[str, int]]:
    """By target: rows in, logged, filtered, quarantined, as the ledger has them."""
    rows = platform.sql(
        "SELECT target, sum(rows_in)::BIGINT AS rows_in, sum(logged)::BIGINT AS logged, "
        "sum(filtered)::BIGINT AS filtered, sum(quarantined)::BIGINT AS quarantined FROM applied GROUP BY target"
    )
    return {row.pop("target"): row for row in rows}


def landed(platform: Platform, source: str) -> tuple[int, int]:
    """Rows landed and dead letters of a source."""
    batches = LandingZone(platform.settings.landing_dir).batches(source)
    return sum(batch.rows for batch in batches), sum(batch.dead_rows for batch in batches)


def sent(platform: Platform, source: str) -> Sent:
    """What the generator was acknowledged."""
    return read_ledger(platform.settings.data_dir).get(source, Sent())


def send_twice(platform: Platform, directory: Path) -> None:
    """One user, two rows with the same time: the second one of the file has to win."""
    as_of = (datetime.now(UTC) - timedelta(minutes=1)).isoformat(timespec="milliseconds")
    path = directory / "twice.csv"
    path.write_text(
        f"user_id,income,debt,age_years,as_of\n{TWICE},100.0,10.0,40,{as_of}\n{TWICE},100.0,90.0,41,{as_of}\n"
    )
    upload(path, "profiles", address=platform.settings.grpc.address)


def wait_until_all_is_sent(platform: Platform) -> None:
    for source, rows in (("user_events", EVENTS), ("profiles", FILES * GeneratorSettings().file_rows)):
        wait_until(
            lambda s=source, r=rows: sent(platform, s).good + sent(platform, s).bad >= r, 120, f"all {source}", platform
        )


def wait_until_all_is_applied(platform: Platform) -> None:
    def all_applied() -> bool:
        counts = accounted(platform)
        rows = {view.target: landed(platform, view.source.name)[0] for view in PROJECT.feature_views}
        return all(counts.get(target, {}).get("rows_in") == count for target, count in rows.items())

    wait_until(all_applied, 120, "every landed row is applied", platform)


def test_1_data_flows_and_adds_up(platform: Platform, tmp_path: Path) -> None:
    send_twice(platform, tmp_path)
    wait_until_all_is_sent(platform)

    # received = landed + dead letters
    for source, besides in (("user_events", 0), ("profiles", 2)):
        of_generator = sent(platform, source)
        assert of_generator.in_doubt == 0
        assert of_generator.bad > 0
        expected = (of_generator.good + besides, of_generator.bad)
        wait_until(lambda s=source, e=expected: landed(platform, s) == e, 60, f"{expected} of {source} land", platform)

    # landed = logged + filtered + quarantined, for each view
    wait_until_all_is_applied(platform)
    views = {view.target for view in PROJECT.feature_views}
    for target, counts in accounted(platform).items():
        if target in views:
            assert counts["rows_in"] == counts["logged"] + counts["filtered"] + counts["quarantined"], target
    assert accounted(platform)["credit_profile@v1"]["quarantined"] == sent(platform, "profiles").doubtful > 0


def test_2_online_equals_the_newest_row_of_every_user(platform: Platform) -> None:
    with connect(PROJECT, platform.settings) as store:
        for view, table in ((CREDIT_PROFILE, "log.credit_profile_v1"), (USER_ACTIVITY, "log.user_activity_v1")):
            names = [feature.name for feature in view.online_row_features]
            newest = platform.sql(
                f"SELECT entity_id, {', '.join(names)} FROM {table} QUALIFY row_number() OVER (PARTITION BY entity_id "
                "ORDER BY event_timestamp DESC, created_at DESC, sequence DESC, tie DESC) = 1"
            )
            assert len(newest) > USERS / 2
            wait_until(
                lambda v=view, n=newest: online_values(store, v, n) == n, 60, f"online = log of {view.name}", platform
            )
        [twice] = store.online({"user_id": [TWICE]}, [CREDIT_PROFILE])
        assert (twice["debt_to_income_ratio"].value, twice["age_years"].value) == (0.9, 41)


def online_values(store: Store, view: FeatureView, newest: list[dict[str, object]]) -> list[dict[str, object]]:
    ids = [row["entity_id"] for row in newest]
    rows = store.online({"user_id": ids}, [view[feature.name] for feature in view.online_row_features])
    return [
        {"entity_id": one, **{name: value.value for name, value in row.items()}}
        for one, row in zip(ids, rows, strict=True)
    ]


def test_2_online_windows_are_those_of_a_training_set(platform: Platform) -> None:
    users = [row["entity_id"] for row in platform.sql("SELECT DISTINCT entity_id FROM log.user_activity_v1")]
    with connect(PROJECT, platform.settings) as store:

        def differ() -> list[str]:
            now = datetime.now(UTC)
            return list(differing(store, USER_ACTIVITY, users, [now, now + timedelta(minutes=7, seconds=3)]))

        wait_until(lambda: not differ(), 60, "windows online = offline", platform)
        counts = [row["clicks_7d"].value for row in store.online({"user_id": users}, [USER_ACTIVITY])]
    assert sum(counts) == platform.sql("SELECT count(clicks) AS n FROM log.user_activity_v1")[0]["n"] > EVENTS / 10


def test_3_the_hours_assets_are_materialized_by_runs_of_sensors(platform: Platform) -> None:
    with dg.DagsterInstance.from_config(str(platform.settings.dagster_home)) as instance:
        hours = {batch.hour for batch in LandingZone(platform.settings.landing_dir).batches()}
        keys = {hour.strftime("%Y-%m-%d-%H:00") for hour in hours}
        for path in ("raw/user_events", "raw/profiles", "features/credit_profile", "online/credit_profile"):
            made = instance.get_materialized_partitions(dg.AssetKey(path.split("/")))
            assert keys & set(made), f"{path}: {made}"
        records = instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]))
        assert records
        assert all(
            "dagster/sensor_name" in r.dagster_run.tags or "dagster/schedule_name" in r.dagster_run.tags
            for r in records
        )
        assert not instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))


def test_4_the_run_limit_holds(platform: Platform) -> None:
    with dg.DagsterInstance.from_config(str(platform.settings.dagster_home)) as instance:
        records = instance.get_run_records()
    edges = [(r.start_time, 1) for r in records if r.start_time] + [(r.end_time, -1) for r in records if r.end_time]
    peak = running = 0
    for _, change in sorted(edges):
        running += change
        peak = max(peak, running)
    assert len(records) > MAX_RUNS
    assert 1 <= peak <= MAX_RUNS


def test_5_the_model_is_published(platform: Platform) -> None:
    with redis.Redis.from_url(platform.settings.redis.url) as client:
        wait_until(
            lambda: bool(client.sismember("prod_models", "credit_risk_v1")), 120, "the model is published", platform
        )
        artifact = client.get("model:credit_risk_v1:onnx")
        manifest = json.loads(client.get("model:credit_risk_v1:artifact") or b"{}")
    assert isinstance(artifact, bytes)
    assert hashlib.sha256(artifact).hexdigest() in json.dumps(manifest)
    assert "credit_risk_v1" in platform.said("models", "list")


def test_5_the_tour_of_the_models_works_as_its_page_says(platform: Platform) -> None:
    """docs/models.md, from labels to a served score; the last command rolls back, to the version that `up` brought."""
    [tour] = re.findall(r"```sh\n(.*?)```", (TREE / "docs" / "models.md").read_text(), re.DOTALL)
    env = {**platform.env, "PYTHONWARNINGS": "ignore"}  # those of the libraries of the example
    for line in tour.splitlines():
        program, *words = shlex.split(line.replace(".featurestore", str(platform.data_dir)), comments=True)
        command = [Path(sys.executable).with_name(program), *words]
        done = subprocess.run(command, cwd=TREE, env=env, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, f"{line}: {done.stdout}\n{done.stderr}\n{platform.logs()}"
        if "compare" in line:
            assert "users by version" in done.stdout
    assert json.loads(platform.said("models", "list", "--json"))[0]["served"] == "1"


def test_6_the_commands_answer(platform: Platform) -> None:
    recent = json.loads(platform.said("get", "user", "--json"))
    assert recent
    assert "last_action" in platform.said("get", "user", str(TWICE)) or recent
    shown = platform.said("get", "user", recent[0])
    assert "user_activity v1" in shown
    assert "credit_profile v1" in shown
    status = platform.said("status")
    assert all(name in status for name in ("kafka", "redis", "azurite", "database"))
    assert "ready" in status
    assert platform.said("logs", "database")
    refused = platform.command("sql", "DELETE FROM applied")
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("line", readme_commands())
def test_6_the_commands_of_the_readme_work(platform: Platform, tmp_path: Path, line: str) -> None:
    (tmp_path / "file.csv").write_text("user_id,income,debt,age_years,as_of\n123,2.0,1.0,30,2026-01-02T03:04:05Z\n")
    upload(tmp_path / "file.csv", "profiles", address=platform.settings.grpc.address)
    words = [*shlex.split(line, comments=True), *["--yes"][: "erase" in line]]  # nobody can be asked here
    hour = datetime.now(UTC).strftime("%Y-%m-%d-%H:00")
    given = {"FILE": str(tmp_path / "file.csv"), "2026-11-22-10:00": hour}
    done = subprocess.run(
        [str(Path(sys.executable).with_name(words[0])), *(given.get(word, word) for word in words[1:])],
        cwd=TREE,
        env={**platform.env, "DAGSTER_HOME": str(platform.settings.dagster_home)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, f"{line}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_7_with_nothing_arriving_nothing_runs(platform: Platform) -> None:
    """But for what the clock asks for: a schedule's run may fall into the minute, and its cost is within the bound."""
    wait_until_all_is_sent(platform)
    wait_until_all_is_applied(platform)
    with dg.DagsterInstance.from_config(str(platform.settings.dagster_home)) as instance:

        def quiet() -> bool:
            live = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
            return not instance.get_run_records(dg.RunsFilter(statuses=live))

        wait_until(quiet, 60, "the last runs end", platform)
        time.sleep(10)  # noqa: TID251  # what ends a run tidies up after it
        processes = platform.processes()
        before, began = cpu_seconds(processes), datetime.now().astimezone()
        time.sleep(IDLE_S)  # noqa: TID251  # idleness is a stretch of time
        busy = (cpu_seconds(processes) - before) / IDLE_S
        memory = sum(process.memory_full_info().pss for process in processes)
        recent = instance.get_run_records(dg.RunsFilter(created_after=began - timedelta(seconds=1)))
    started = [record.dagster_run.tags for record in recent if "dagster/schedule_name" not in record.dagster_run.tags]
    detail = sorted(((p.memory_full_info().pss >> 20, " ".join(p.cmdline())[-90:]) for p in processes), reverse=True)
    assert not started, f"runs with nothing to do: {started}"
    assert busy <= 0.15, f"{busy:.3f} of a core; {detail}"
    assert memory <= 2.5 * 2**30, f"{memory >> 20} MB; {detail}"


def test_8_killed_it_leaves_nothing_and_goes_on_where_it_was(platform: Platform) -> None:
    before, home = accounted(platform), Home(platform.data_dir)
    addresses, state, everything = home.addresses(), home.state(), platform.processes()
    assert state is not None
    assert {"redis", "kafka", "azurite", "database", "dagster-web"} <= {one.name for one in state.processes}
    second = platform.command("up")
    assert second.returncode == 1
    assert f"is running (process {state.pid})" in second.stderr

    os.kill(state.pid, signal.SIGKILL)
    assert not psutil.wait_procs(everything, timeout=60)[1]
    assert platform.processes() == []

    assert platform.up("--no-generator") <= 20
    again = home.state()
    assert again is not None
    assert "generator" not in {one.name for one in again.processes}
    assert home.addresses() == addresses
    platform.said("doctor")
    wait_until(lambda: accounted(platform) == before, 60, "nothing is lost, nothing twice", platform)
    online = RedisOnlineStore(platform.settings.redis.url)
    try:
        assert online.pushed(CREDIT_PROFILE).position > 0
    finally:
        online.close()


def test_9_everything_stops(platform: Platform) -> None:
    addresses = [address for process in platform.processes() for address in listening(process)]
    assert addresses
    assert all(is_loopback(address) for address in addresses), addresses
    platform.down()
    assert platform.processes() == []


def is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def listening(process: psutil.Process) -> list[str]:
    try:
        return [c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
    except psutil.NoSuchProcess:
        return []
