"""Landed batches → run requests: a platform in one process, with Dagster's own records."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from featurestore.definitions.feature import Feature
from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView
from featurestore.online.memory import MemoryOnlineStore
from featurestore.settings import RedisSettings, Settings
from featurestore_dagster.names import LANE_TAG, Keys
from featurestore_dagster.partitions import key_of
from featurestore_dagster.runs import batches_of
from featurestore_dagster.sensors import landed
from featurestore_dagster.sensors.cursor import Cursor
from featurestore_dagster.services import Services, connect
from featurestore_dagster.testing import land, memory_resources
from tests.featurestore_dagster.platform import CLICKS, LAST, PROJECT, SETTINGS, USER, Down, Platform

NUMBER = FeatureView("number", USER, CLICKS, [Feature("page_number", int, "CAST(page AS BIGINT)")])


def test_landed_batches_become_a_run(platform: Platform) -> None:
    batches = [platform.land("a"), platform.land("b")]
    [request] = platform.tick()
    assert batches_of(request.run_config) == {batch.batch_id for batch in batches}
    assert request.partition_key == key_of(batches[0].hour)
    assert request.tags[LANE_TAG] == "clicks.0"
    keys = Keys()
    assert request.asset_selection == [keys.raw("clicks"), keys.features("last_click"), keys.online("last_click")]
    assert request.run_key is None
    assert platform.run(request)
    assert platform.tick() == []


def test_when_nothing_waits_nothing_is_requested(platform: Platform) -> None:
    assert platform.tick() == []
    platform.land("a")
    platform.settle()
    platform.now += timedelta(seconds=5)
    assert platform.tick() == []
    assert platform.said == "nothing waits; 1 batches have landed"


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED])
def test_a_live_run_keeps_its_batches_and_its_lane(platform: Platform, status: dg.DagsterRunStatus) -> None:
    platform.land("a")
    [request] = platform.tick()
    platform.queue(request, status)
    platform.now += timedelta(minutes=5)
    assert platform.tick() == []
    platform.land("b")
    [other] = platform.tick()
    assert other.tags[LANE_TAG] == "clicks.1"
    assert not batches_of(other.run_config) & batches_of(request.run_config)
    platform.queue(other, status)
    platform.land("c")
    platform.now += timedelta(minutes=5)
    assert platform.tick() == []


def test_a_run_that_was_never_queued_counts_as_dead_after_three_minutes(platform: Platform) -> None:
    platform.land("a")
    [request] = platform.tick()
    platform.queue(request, dg.DagsterRunStatus.NOT_STARTED)
    platform.now += timedelta(minutes=2)
    assert platform.tick() == []
    platform.now += timedelta(minutes=2)
    [again] = platform.tick()
    assert batches_of(again.run_config) == batches_of(request.run_config)


def test_a_source_gets_a_run_once_per_interval(platform: Platform) -> None:
    platform.land("a")
    platform.run(platform.tick()[0])
    platform.land("b")
    platform.now += timedelta(seconds=5)
    assert platform.tick() == []
    platform.now += timedelta(seconds=5)
    assert len(platform.tick()) == 1


def test_a_backlog_is_cut_into_lanes(platform: Platform) -> None:
    platform.sensor = landed.sensor(
        platform.project, lambda: platform.connect(), replace(SETTINGS, run_batches=4), clock=lambda: platform.now
    )
    for _ in range(12):
        platform.land("a")
    requests = platform.tick()
    assert [request.tags[LANE_TAG] for request in requests] == ["clicks.0", "clicks.1"]
    assert [len(batches_of(request.run_config)) for request in requests] == [4, 4]


def test_an_hour_that_does_not_exist_yet_waits_and_fails_no_tick(platform: Platform) -> None:
    platform.land("a")
    platform.land("b", at=platform.now + timedelta(hours=3))
    [request] = platform.tick()
    assert len(batches_of(request.run_config)) == 1
    assert platform.run(request)
    platform.now += timedelta(seconds=10)
    assert platform.tick() == []
    assert platform.said.startswith("1 batches wait")


def test_a_flushed_online_store_is_filled_again(platform: Platform) -> None:
    platform.land("a", "b")
    platform.settle()
    online = MemoryOnlineStore()
    platform.resources["online"] = online  # what FLUSHALL leaves
    platform.now += timedelta(seconds=10)
    platform.settle()
    [row] = online.read("user", ["1"], [LAST["page"]], platform.now)
    assert row["page"].value == "b"


def test_a_new_view_starts_with_what_lands_from_then_on(platform: Platform) -> None:
    platform.land("1")
    platform.settle()
    platform.use(Project((LAST, NUMBER)))
    platform.now = datetime.now(UTC) + timedelta(seconds=11)
    assert platform.tick() == []
    new = platform.land("2")
    [request] = platform.tick()
    assert batches_of(request.run_config) == {new.batch_id}
    assert Keys().features("number") in (request.asset_selection or ())


def test_the_first_views_of_a_source_get_everything_that_has_landed(platform: Platform) -> None:
    platform.land("a", at=platform.now - timedelta(minutes=30))
    assert len(platform.tick()) == 1


# --- failures --------------------------------------------------------------------------------------------------


def test_a_poisoned_batch_is_parked_and_holds_up_no_other(platform: Platform) -> None:
    platform.use(Project((NUMBER,)))
    good, bad = platform.land("1", "2"), platform.land("not a number")
    runs = 0
    for _ in range(30):
        for request in platform.tick():
            runs += 1
            platform.run(request)
        platform.now += timedelta(seconds=30)
    cursor = Cursor.from_json(platform.cursor, platform.now)
    assert cursor.parked == {bad.batch_id}
    assert "could not convert" in cursor.troubles[bad.batch_id].reason.lower()
    assert runs == 1 + 1 + 3  # both, then the good one alone, then the bad one three times alone
    with platform.connect() as services:
        ledger = services.backlog.ledger(platform.project, services.database)
        assert set(ledger.rows) == {(good.batch_id, NUMBER.target)}
    assert "parked" in platform.said
    third = platform.land("3")
    [request] = platform.tick()
    assert batches_of(request.run_config) == {third.batch_id}


@pytest.mark.parametrize("service", ["online", "database"])
def test_a_service_that_is_down_makes_a_skip_that_says_so(platform: Platform, service: str) -> None:
    platform.land("a")
    whole = platform.connect

    @contextmanager
    def without() -> Generator[Services]:
        with whole() as services:
            yield replace(services, **{service: Down()})

    platform.connect = without
    for _ in range(5):
        assert platform.tick() == []
        assert platform.said.startswith("Redis does not answer at 127.0.0.1:1")
        platform.now += timedelta(minutes=1)
    platform.connect = whole
    assert len(platform.tick()) == 1
    assert not Cursor.from_json(platform.cursor, platform.now).troubles


def test_a_platform_that_is_not_there_makes_a_skip_too(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, redis=RedisSettings(url="redis://127.0.0.1:1/0"))
    sensor = landed.sensor(PROJECT, connect(settings))
    result = sensor(dg.build_sensor_context(instance=instance))
    assert isinstance(result, dg.SkipReason)
    assert "Redis does not answer at 127.0.0.1:1" in (result.skip_message or "")


def test_runs_that_met_an_outage_park_nothing(platform: Platform) -> None:
    platform.land("a")
    platform.land("b")
    online = platform.resources["online"]
    for _ in range(8):
        requests = platform.tick()
        platform.resources["online"] = Down()
        for request in requests:
            assert not platform.run(request)
        platform.resources["online"] = online
        platform.now += timedelta(minutes=6)
    cursor = Cursor.from_json(platform.cursor, platform.now)
    assert not cursor.parked
    assert not any(trouble.alone for trouble in cursor.troubles.values())
    [request] = platform.tick()
    assert len(batches_of(request.run_config)) == 2  # still together
    assert platform.run(request)
    platform.now += timedelta(seconds=10)
    assert platform.tick() == []


def test_a_damaged_landing_zone_holds_up_no_other_source(platform: Platform) -> None:
    other = replace(CLICKS, name="taps")
    taps = FeatureView("last_tap", USER, other, [Feature("tapped", str, "page")])
    platform.use(Project((LAST, taps)))
    batch = platform.land("a")
    land(platform.resources, other, [{"user_id": 1, "at": platform.now, "page": "b"}], created_at=platform.now)
    path = platform.zone.storage.root / batch.batch_id
    path.write_bytes(path.read_bytes()[:-20])
    [request] = platform.tick()
    assert request.tags[LANE_TAG] == "taps.0"
    assert platform.run(request)
    platform.now += timedelta(seconds=10)
    assert platform.tick() == []
    assert batch.batch_id in platform.said


def test_changed_code_is_refused_before_anything_is_requested(platform: Platform) -> None:
    platform.land("a")
    platform.settle()
    platform.use(Project((replace(LAST, features=[Feature("page", str, "upper(page)", online=True)]),)))
    platform.land("b")
    platform.now += timedelta(seconds=10)
    assert platform.tick() == []
    assert "version" in platform.said


def test_an_unreadable_cursor_is_only_a_hint_lost(platform: Platform) -> None:
    platform.cursor = "of an older version"
    platform.land("a")
    assert len(platform.tick()) == 1


def test_after_a_restore_the_ledger_is_read_anew(platform: Platform, tmp_path: Path) -> None:
    """A restored database knows less: what it lacks is applied again."""
    platform.land("a")
    platform.settle()
    restored = memory_resources(tmp_path / "restored")
    platform.resources.update(duckdb=restored["duckdb"], database=restored["database"], online=MemoryOnlineStore())
    platform.now += timedelta(minutes=2)
    platform.settle()
    with platform.connect() as services:
        assert len(services.backlog.ledger(platform.project, services.database).rows) == 1


def test_a_tick_whose_cursor_was_lost_requests_nothing_twice(platform: Platform) -> None:
    """The daemon died after it had made the runs: their batches are found in them."""
    platform.land("a")
    [request] = platform.tick()
    platform.queue(request, dg.DagsterRunStatus.NOT_STARTED)
    platform.cursor = None
    assert platform.tick() == []
    assert "1 batches wait; 1 runs are live" in platform.said


def test_it_goes_on_after_days_of_standing_still(platform: Platform) -> None:
    """With its old cursor, a run that was started when everything stopped, and what ingest has landed since."""
    platform.land("a")
    [request] = platform.tick()
    stopped = platform.queue(request, dg.DagsterRunStatus.STARTED)
    platform.now += timedelta(days=9)
    run = platform.instance.get_run_by_id(stopped)
    assert run
    platform.instance.report_run_failed(run)  # by run monitoring, or the reconciler
    for hours in range(12):
        platform.land("b", at=platform.now - timedelta(hours=11 - hours))
    platform.settle()
    with platform.connect() as services:
        assert len(services.backlog.ledger(platform.project, services.database).rows) == 13
    assert not Cursor.from_json(platform.cursor, platform.now).troubles


def test_a_large_backlog_goes_in_full_runs_and_none_is_left(platform: Platform) -> None:
    batches = {platform.land("a", at=platform.now - timedelta(days=3, seconds=205 - n)).batch_id for n in range(205)}
    requested: list[str] = []
    for _ in range(10):
        requests = platform.tick()
        named = [batches_of(request.run_config) for request in requests]
        assert all(len(one) <= SETTINGS.run_batches for one in named)
        requested += [batch_id for one in named for batch_id in one]
        assert all(platform.run(request) for request in requests)
        platform.now += timedelta(seconds=10)
    assert set(requested) == batches
    assert len(requested) == len(batches)
    assert platform.tick() == []
