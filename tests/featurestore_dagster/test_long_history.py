"""Dagster's state after a long time: small, and as fast as on the first day (see benchmarks/long_history.py)."""

import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sql
import yaml
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickData, TickStatus
from sqlalchemy import event

from featurestore_dagster import maintenance, reconcile
from featurestore_dagster.checks.definitions import checks_of
from featurestore_dagster.instance import SENSOR_LOOP_S
from featurestore_dagster.maintenance import KEEP_DAYS, KEEP_RUNLESS_DAYS, KEEP_RUNS, PURGED_AT_ONCE, purge_job
from featurestore_dagster.names import LANE_TAG
from featurestore_dagster.runs import LIVE
from featurestore_dagster.sensors import checks
from tests.featurestore_dagster.history import lengthen
from tests.featurestore_dagster.pages import pages
from tests.featurestore_dagster.platform import SETTINGS, Platform

DAGSTER_YAML = Path(__file__).parents[2] / "dagster.yaml"

# The demo's load.
SOURCES = 2
RUN_EVERY_S = 10  # for each source, at most
TICK_EVERY_S = SENSOR_LOOP_S  # of the sensor of landed batches; the other sensors tick once a minute
SLOW_SENSORS = 4
DAY_S = 86_400
LIMIT_BYTES = 500 * 2**20

SHORT, LONG = 100, 2_500  # runs
STEPS = 100  # of SQLite's machine, counted at once

# Of an asset's checks, to find the last, Dagster's pages read every execution that is kept: they are not among these.
PAGES = {
    "graph": """{assetNodes{assetKey{path} assetMaterializations(limit: 1){timestamp runId}
      partitionStats{numMaterialized numFailed} freshnessStatusInfo{freshnessStatus}}}""",
    "runs": """{runsFeedOrError(limit: 30, view: ROOTS){... on RunsFeedConnection{results{id ... on Run{
      status tags{key value} startTime endTime assetSelection{path}}}}}}""",
    "tabs": "{runsFeedCountOrError(view: RUNS, filter: {statuses: [STARTED, QUEUED]}){... on RunsFeedCount{count}}}",
    "hours": """{assetNodeOrError(assetKey: {path: ["features", "last_click"]}){... on AssetNode{
      assetPartitionStatuses{... on TimePartitionStatuses{ranges{startKey}}}}}}""",
}


@pytest.fixture
def instance(tmp_path: Path) -> Generator[dg.DagsterInstance]:
    """As `featurestore up` makes it, on disk."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(DAGSTER_YAML.read_text())
    with dg.DagsterInstance.from_config(str(home)) as found:
        yield found


@pytest.fixture
def settled(platform: Platform) -> Platform:
    """A first run has come and gone."""
    platform.land("first")
    platform.settle()
    return platform


def state_of(instance: dg.DagsterInstance) -> Path:
    return Path(instance.root_directory, "state")


class Work:
    """Counts what every SQLite database that this process opens from now on has to do."""

    def __init__(self) -> None:
        self.done = 0

    def of(self, action: Callable[[], object]) -> int:
        before = self.done
        action()
        return self.done - before

    def watch(self, connection: sqlite3.Connection, _record: object) -> None:
        connection.set_progress_handler(self._count, STEPS)

    def _count(self) -> None:
        self.done += 1


@pytest.fixture
def work() -> Generator[Work]:
    counted = Work()
    event.listen(sql.Engine, "connect", counted.watch)
    yield counted
    event.remove(sql.Engine, "connect", counted.watch)


def test_ticks_and_pages_do_no_more_than_on_the_first_day(
    work: Work, instance: dg.DagsterInstance, settled: Platform
) -> None:
    schedule = reconcile.schedule(settled.project, settled.connect, SETTINGS)
    with pages(instance, "tests.featurestore_dagster.live.location") as ask:
        actions: dict[str, Callable[[], object]] = {
            "tick": settled.tick,
            "reconcile": lambda: schedule(dg.build_schedule_context(instance=instance)),
            "control": lambda: instance.get_runs(dg.RunsFilter(tags={LANE_TAG: "clicks.0"}, statuses=list(LIVE))),
            **{name: lambda page=page: ask(page) for name, page in PAGES.items()},
        }

        def measured() -> dict[str, int]:
            settled.land("more")
            for action in actions.values():
                action()  # what a first look keeps for the next ones
            return {name: work.of(action) for name, action in actions.items()}

        lengthen(state_of(instance), SHORT)
        short = measured()
        lengthen(state_of(instance), LONG)
        long = measured()
    assert all(short.values())
    grown = {name: (short[name], long[name]) for name in actions if long[name] > 2 * short[name] + 10}
    assert set(grown) == {"control"}, grown


def test_nothing_is_left_of_what_was_purged(
    monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance, settled: Platform
) -> None:
    outside = dg.AssetKey("outside")
    for _ in range(2):
        instance.report_runless_asset_event(dg.AssetMaterialization(outside))
    with closing(sqlite3.connect(state_of(instance) / "event_log.db")) as database, database:
        long_ago = f"datetime('now', '-{KEEP_RUNLESS_DAYS + 1} days')"
        database.execute(f"UPDATE event_logs SET timestamp = {long_ago} WHERE id IN (SELECT max(id) FROM event_logs)")
    lengthen(state_of(instance), 150)
    monkeypatch.setattr(maintenance.superfluous, "__kwdefaults__", {"keep": 20})
    assert purge_job().execute_in_process(instance=instance).success
    kept = {run.run_id for run in instance.get_runs()}
    assert len(kept) == 20 + 1  # and the purge itself
    assert {path.name for path in Path(instance.root_directory, "storage").iterdir()} <= kept  # what runs printed
    assert len(instance.fetch_materializations(outside, limit=9).records) == 1
    assert ownerless(state_of(instance)) == dict.fromkeys(OWNERS, 0)


OWNERS = {
    "run_tags": "SELECT 1 FROM runs WHERE run_id = run_tags.run_id",
    "event_logs": "SELECT 1 FROM runs WHERE run_id = event_logs.run_id OR event_logs.run_id = ''",
    "asset_event_tags": "SELECT 1 FROM event_logs WHERE id = asset_event_tags.event_id",
    "asset_check_executions": "SELECT 1 FROM runs WHERE run_id = asset_check_executions.run_id",
}


def ownerless(state: Path) -> dict[str, int]:
    """By table, how many rows belong to nothing that is there."""
    with closing(sqlite3.connect(state / "runs.db")) as database:
        database.execute("ATTACH ? AS events", [str(state / "event_log.db")])
        counts = {
            table: database.execute(f"SELECT count(*) FROM {table} WHERE NOT EXISTS ({owner})").fetchone()
            for table, owner in OWNERS.items()
        }
    return {table: count for table, (count,) in counts.items()}


def test_at_the_demos_load_the_state_stays_small_for_ever(instance: dg.DagsterInstance, settled: Platform) -> None:
    def bytes_of(action: Callable[[], object], times: int) -> float:
        before = size(state_of(instance))
        for _ in range(times):
            action()
        return (size(state_of(instance)) - before) / times

    def run() -> None:
        settled.land("more")
        settled.settle()

    def evaluate() -> None:
        result = checks.sensor(checks_of(settled.project), settled.project, settled.connect)(
            dg.build_sensor_context(instance=instance)
        )
        assert isinstance(result, dg.SensorResult)
        for evaluation in result.asset_events:
            instance.report_runless_asset_event(evaluation)

    def tick() -> None:
        instance.create_tick(
            TickData(
                instigator_origin_id="a" * 40,
                instigator_name="landed_batches",
                instigator_type=InstigatorType.SENSOR,
                status=TickStatus.SKIPPED,
                timestamp=datetime.now(UTC).timestamp(),
                selector_id="b" * 40,
                skip_reason=settled.said,
                cursor=settled.cursor,
            )
        )

    runs_per_s = SOURCES / RUN_EVERY_S
    between_purges = round(3_600 * runs_per_s)  # the purge runs hourly
    assert between_purges < PURGED_AT_ONCE  # and keeps up
    tick_days = yaml.safe_load(DAGSTER_YAML.read_text())["retention"]["sensor"]["purge_after_days"]
    parts = {
        "runs": bytes_of(run, 4) * (KEEP_RUNS + between_purges + SOURCES * 24 * KEEP_DAYS),  # … the last of each hour
        "checks": bytes_of(evaluate, 4) * SOURCES * KEEP_RUNLESS_DAYS * (DAY_S / checks.EVERY.total_seconds()),
        "ticks": bytes_of(tick, 50) * tick_days * DAY_S * (1 / TICK_EVERY_S + SLOW_SENSORS / 60),
    }
    assert sum(parts.values()) < LIMIT_BYTES, {name: f"{part / 2**20:.0f} MB" for name, part in parts.items()}


def size(directory: Path) -> int:
    """Of all files, as they are when the databases are at rest."""
    return sum(
        file.stat().st_size for file in directory.rglob("*") if file.is_file() and not file.name.endswith("-shm")
    )
