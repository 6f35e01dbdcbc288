"""An emptied Redis is filled again from the log; what a crash leaves is not this sensor's."""

from typing import Any

import dagster as dg
import pytest

from featurestore.online.memory import MemoryOnlineStore
from featurestore_dagster import backlog
from featurestore_dagster.assets.online import REBUILD_TAG, online_rebuild
from featurestore_dagster.sensors import online_lost
from tests.featurestore_dagster.platform import LAST, PROJECT, Platform


@pytest.fixture
def lost(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A platform whose Redis lists none of more lines than a crash leaves."""
    monkeypatch.setattr(backlog, "REBUILD_ABOVE", 2)
    for page in "abc":
        platform.land(page, page.upper())
    platform.settle()
    platform.resources["online"] = MemoryOnlineStore()
    return platform


def tick(platform: Platform) -> Any:
    sensor = online_lost.sensor(PROJECT, lambda: platform.connect())
    return sensor(dg.build_sensor_context(instance=platform.instance))


def test_an_emptied_store_is_rebuilt(lost: Platform) -> None:
    assert lost.tick() == []  # no batch is read again
    request = tick(lost)
    assert isinstance(request, dg.RunRequest)
    assert request.tags[REBUILD_TAG] == "last_click"
    job = dg.Definitions(
        assets=[online_rebuild(PROJECT)], resources=lost.resources
    ).resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=lost.instance, run_config=dict(request.run_config)).success
    online = lost.resources["online"]
    assert isinstance(online, MemoryOnlineStore)
    rows = online.read("user", ["0", "1"], [LAST["page"], LAST["clicks_1h"]], lost.now)
    assert [(row["page"].value, row["clicks_1h"].value) for row in rows] == [("c", 3), ("C", 3)]
    assert isinstance(tick(lost), dg.SkipReason)
    assert lost.tick() == []


def test_one_rebuild_at_a_time(lost: Platform) -> None:
    request = tick(lost)
    lost.instance.create_run_for_job(lost.job, tags=dict(request.tags), status=dg.DagsterRunStatus.STARTED)
    assert tick(lost).skip_message == "a rebuild is running"


def test_a_few_missing_lines_are_left_to_the_batches(platform: Platform) -> None:
    platform.land("a")
    platform.settle()
    platform.resources["online"] = MemoryOnlineStore()
    assert isinstance(tick(platform), dg.SkipReason)
    assert len(platform.tick()) == 1


def test_a_rebuild_needs_no_flush_and_takes_nothing_back(platform: Platform) -> None:
    platform.land("old")
    platform.settle()
    online = platform.resources["online"]
    assert isinstance(online, MemoryOnlineStore)
    job = dg.Definitions(
        assets=[online_rebuild(PROJECT)], resources=platform.resources
    ).resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=platform.instance).success
    [row] = online.read("user", ["0"], [LAST["page"]], platform.now)
    assert row["page"].value == "old"
