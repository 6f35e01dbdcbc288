"""The schedule that forgets nothing: it requests what the sensor should have requested long ago."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import dagster as dg
import pytest

from featurestore_dagster import reconcile
from featurestore_dagster.runs import batches_of
from featurestore_dagster.services import Services
from tests.featurestore_dagster.platform import SETTINGS, Down, Platform
from tests.featurestore_dagster.test_liveness import dead_pid, started_run


@pytest.fixture
def instance() -> Generator[dg.DagsterInstance]:
    """On disk: a schedule opens it by its reference."""
    with dg.instance_for_test() as found:
        yield found


def evaluate(platform: Platform) -> list[dg.RunRequest]:
    schedule = reconcile.schedule(platform.project, platform.connect, SETTINGS, clock=lambda: platform.now)
    found = schedule(dg.build_schedule_context(instance=platform.instance))
    if isinstance(found, dg.SkipReason):
        platform.said = found.skip_message or ""
        return []
    assert isinstance(found, list)
    return found


def test_what_the_sensor_left_is_requested(platform: Platform) -> None:
    batch = platform.land("a")
    assert evaluate(platform) == []  # the sensor has time to
    platform.now += reconcile.OVERDUE + timedelta(seconds=1)
    [request] = evaluate(platform)
    assert batches_of(request.run_config) == {batch.batch_id}
    assert request.run_key  # one of several in a tick
    assert platform.run(request)
    assert evaluate(platform) == []
    assert "every batch is applied" in platform.said


def test_what_runs_already_is_left_to_its_run(platform: Platform) -> None:
    platform.land("a")
    [request] = platform.tick()
    platform.queue(request, dg.DagsterRunStatus.STARTED)
    platform.now += reconcile.OVERDUE + timedelta(seconds=1)
    assert evaluate(platform) == []


def test_what_the_sensor_believes_is_not_believed(platform: Platform) -> None:
    """A batch that was in the log and online, and is online no longer, while the sensor still thinks all is well."""
    platform.land("a")
    platform.settle()
    platform.resources["online"] = type(platform.resources["online"])()  # as empty as on the first day
    platform.now += reconcile.OVERDUE + timedelta(seconds=1)
    assert len(evaluate(platform)) == 1


@pytest.mark.parametrize("service", ["online", "database"])
def test_a_service_that_is_down_is_said(platform: Platform, service: str) -> None:
    whole = platform.connect

    @contextmanager
    def without() -> Generator[Services]:
        with whole() as services:
            yield replace(services, **{service: Down()})

    platform.connect = without
    platform.land("a")
    assert evaluate(platform) == []
    assert "127.0.0.1:1" in platform.said


def test_dead_runs_are_failed(platform: Platform) -> None:
    run_id = started_run(platform.instance, dead_pid())
    assert evaluate(platform) == []
    assert "1 dead runs were failed" in platform.said
    run = platform.instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.FAILURE
