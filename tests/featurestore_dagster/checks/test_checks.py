"""Each check is green on a sound platform, and turns red when what it watches is broken."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import dagster as dg
import pytest
import redis

from featurestore.definitions.feature import Feature
from featurestore.definitions.project import Project
from featurestore.definitions.source import UploadSource
from featurestore.definitions.view import FeatureView
from featurestore.online.memory import MemoryOnlineStore
from featurestore.online.redis_store import RedisOnlineStore
from featurestore_dagster.assets.features import feature_assets
from featurestore_dagster.assets.raw import raw_assets, source_specs
from featurestore_dagster.checks.accounting import accounting
from featurestore_dagster.checks.definitions import checks_of, run_by_hand
from featurestore_dagster.checks.scope import Check, Scope
from featurestore_dagster.sensors import checks
from featurestore_dagster.testing import land
from tests.featurestore_dagster.platform import CLICKS, PROJECT, USER, Platform, spoil

ALL = [ACCOUNTING, COMPLETENESS, FUTURE_ROWS, PARITY] = checks_of(PROJECT)


def look(platform: Platform, check: Check) -> dg.AssetCheckResult:
    with platform.connect() as services:
        scope = Scope.of(platform.project, services.landing, services.database, services.online, services.backlog)
        result = check.result(scope)
    assert result.passed or check.advice in (result.description or "")
    return result


@pytest.mark.parametrize("check", ALL, ids=lambda check: check.name)
def test_a_sound_platform_is_green(platform: Platform, check: Check) -> None:
    assert look(platform, check).passed  # nothing has landed
    platform.land("a", "b", "c")
    platform.land()
    platform.settle()
    result = look(platform, check)
    assert result.passed
    assert result.description is None


def test_accounting_sees_a_lost_row(platform: Platform) -> None:
    platform.land("a", "b", "c")
    platform.settle()
    spoil(platform, "DELETE FROM hot.last_click_v1 WHERE entity_id = '1'")
    result = look(platform, ACCOUNTING)
    assert not result.passed
    assert "the log has 2 rows" in (result.description or "")


def test_accounting_of_rows_that_bring_their_own_created_at(platform: Platform) -> None:
    columns = {"user_id": int, "plan": str}
    source = UploadSource("imported", timestamp="at", created_at="loaded_at", schema=columns)
    view = FeatureView("plan", USER, source, [Feature("plan", str)])
    platform.use(Project((view,)))
    [check] = accounting(platform.project)
    long_ago = platform.now - timedelta(days=40)
    record = {"user_id": 1, "plan": "basic", "at": long_ago, "loaded_at": long_ago}
    land(platform.resources, source, [record, {**record, "user_id": 2}], created_at=platform.now)
    platform.settle()
    assert look(platform, check).passed
    spoil(platform, "DELETE FROM hot.plan_v1 WHERE entity_id = '1'")
    assert not look(platform, check).passed


def test_accounting_sees_a_row_written_twice(platform: Platform) -> None:
    platform.land("a", "b", "c")
    platform.settle()
    spoil(platform, "INSERT INTO hot.last_click_v1 SELECT * FROM hot.last_click_v1 WHERE entity_id = '1'")
    assert not look(platform, ACCOUNTING).passed


def test_accounting_sees_a_ledger_that_differs_from_the_footers(platform: Platform) -> None:
    batch = platform.land("a", "b", "c")
    platform.settle()
    spoil(platform, "UPDATE applied SET rows_in = 2, logged = 2")
    platform.use(PROJECT)  # another process
    result = look(platform, ACCOUNTING)
    assert not result.passed
    assert f"{batch.batch_id} landed with 3 rows; the ledger says 2" in (result.description or "")


def test_completeness_sees_a_batch_that_waits_for_long(platform: Platform) -> None:
    late = platform.land("a", at=platform.now - timedelta(minutes=6))
    result = look(platform, COMPLETENESS)
    assert not result.passed
    assert late.batch_id in (result.description or "")
    platform.settle()
    platform.land("b", at=platform.now - timedelta(minutes=4))
    assert look(platform, COMPLETENESS).passed  # it may be on its way


def test_future_rows_sees_an_event_after_its_landing(platform: Platform) -> None:
    soon, late = ({"user_id": 1, "at": platform.now + timedelta(minutes=m), "page": "x"} for m in (4, 6))
    land(platform.resources, CLICKS, [soon], created_at=platform.now)
    platform.settle()
    assert look(platform, FUTURE_ROWS).passed
    land(platform.resources, CLICKS, [late], created_at=platform.now)
    platform.settle()
    result = look(platform, FUTURE_ROWS)
    assert not result.passed
    assert result.metadata is not None
    assert result.metadata["future"].value == 1


def test_parity_sees_an_online_value_that_is_not_the_logs(platform: Platform) -> None:
    platform.land("a", "b")
    platform.settle()
    platform.resources["online"] = MemoryOnlineStore()
    result = look(platform, PARITY)
    assert not result.passed
    assert "2 of 2 entities differ" in (result.description or "")
    platform.settle()
    assert look(platform, PARITY).passed
    spoil(platform, "UPDATE hot.last_click_v1 SET page = 'other' WHERE entity_id = '0'")
    assert "e.g. user 0: page is 'a' of " in (look(platform, PARITY).description or "")


def test_parity_sees_a_window_that_is_not_the_logs(platform: Platform) -> None:
    platform.land("a", "b")
    platform.settle()
    assert look(platform, PARITY).passed
    spoil(platform, "UPDATE hot.last_click_v1 SET clicks = NULL WHERE entity_id = '1'")
    assert "1 of 2 entities differ, e.g. user 1: clicks_1h is 1 of " in (look(platform, PARITY).description or "")


@pytest.mark.services
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda raw: raw[:5] + b"z", "page is 'z' of "),  # another value
        (lambda raw: b"T" + bytes(4) + raw[5:], "page is MISSING online"),  # of another row
        (lambda raw: b"?" + raw[1:], "not readable"),
    ],
)
def test_parity_names_one_value_that_was_changed_in_redis(
    platform: Platform, redis_url: str, damage: Callable[[bytes], bytes], said: str
) -> None:
    platform.resources["online"] = RedisOnlineStore(redis_url)
    platform.land("a", "b", "c")
    platform.settle()
    assert look(platform, PARITY).passed
    with redis.Redis.from_url(redis_url) as client:
        client.hset("fs:{user:1}", "page@1", damage(client.hget("fs:{user:1}", "page@1")))
    description = look(platform, PARITY).description or ""
    assert "1 of 3 entities differ, e.g. user 1: page is " in description
    assert said in description
    assert "'b' of " in description
    assert platform.rebuild()
    assert look(platform, PARITY).passed


def test_they_can_be_run_by_hand(platform: Platform, instance: dg.DagsterInstance) -> None:
    platform.land("a")
    platform.settle()
    definitions = run_by_hand(ALL, PROJECT)
    assets = [*source_specs(PROJECT), *raw_assets(PROJECT), *feature_assets(PROJECT)]
    job = dg.Definitions(
        assets=assets, asset_checks=definitions, resources=platform.resources
    ).resolve_implicit_global_asset_job_def()
    names = {key for definition in definitions for key in definition.check_keys}
    result = job.get_subset(asset_selection=set(), asset_check_selection=names).execute_in_process(instance=instance)
    assert {(one.check_name, one.passed) for one in result.get_asset_check_evaluations()} == {
        (check.name, True) for check in ALL
    }


def test_the_sensor_evaluates_them_while_data_arrives(platform: Platform, instance: dg.DagsterInstance) -> None:
    sensor = checks.sensor(ALL, PROJECT, lambda: platform.connect())
    cursor: str | None = None

    def tick() -> dict[str, bool]:
        nonlocal cursor
        result = sensor(dg.build_sensor_context(instance=instance, cursor=cursor))
        if isinstance(result, dg.SkipReason):
            return {}
        assert isinstance(result, dg.SensorResult)
        cursor = result.cursor or cursor
        return {
            event.check_name: event.passed
            for event in result.asset_events
            if isinstance(event, dg.AssetCheckEvaluation)
        }

    assert tick() == {check.name: True for check in ALL}
    assert tick() == {}  # nothing has landed since
    platform.land("a")
    platform.settle()
    cursor = None  # as after ten minutes
    assert tick() == {check.name: True for check in ALL}
    assert tick() == {}
    spoil(platform, "DELETE FROM hot.last_click_v1")
    cursor = None
    assert tick()["accounting"] is False
    assert tick()["accounting"] is False  # what is red is looked at again, though nothing lands


def test_a_check_looks_at_every_version(platform: Platform) -> None:
    [view] = PROJECT.feature_views
    second = replace(view, version=2)
    platform.use(Project((view, second)))
    platform.land("a")
    platform.settle()
    spoil(platform, "DELETE FROM hot.last_click_v2")
    [check] = accounting(platform.project)
    with platform.connect() as services:
        scope = Scope.of(platform.project, services.landing, services.database, services.online, services.backlog)
        result = check.result(scope)
    assert not result.passed
    assert (result.description or "").startswith("last_click@v2: ")
    assert result.metadata is not None
    assert result.metadata["last_click@v1 logged"].value == 1
