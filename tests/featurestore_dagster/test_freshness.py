"""What has not been applied for long turns yellow, then red."""

from collections.abc import Generator
from datetime import timedelta

import dagster as dg
import pytest
from dagster._core.test_utils import freeze_time
from dagster._daemon.freshness import FreshnessDaemon

from tests.featurestore_dagster.pages import Pages, pages
from tests.featurestore_dagster.platform import Platform

VIEW = ("features/last_click", "online/last_click")


@pytest.fixture
def instance() -> Generator[dg.DagsterInstance]:
    """On disk: code locations open it by its reference."""
    with dg.instance_for_test() as found:
        yield found


def test_a_stream_that_falls_silent_turns_red(platform: Platform, instance: dg.DagsterInstance) -> None:
    with pages(instance, "tests.featurestore_dagster.live.location") as ask:
        assert seen_after(timedelta(0), ask, platform) == {"UNKNOWN"}  # nothing was ever applied
        platform.land("a")
        platform.settle()
        for silent, state in (
            (timedelta(minutes=50), "HEALTHY"),
            (timedelta(hours=2), "WARNING"),
            (timedelta(hours=7), "DEGRADED"),
        ):
            assert seen_after(silent, ask, platform) == {state}
        platform.now += timedelta(hours=7)
        platform.land("b")
        platform.settle()
        assert seen_after(timedelta(0), ask, platform) == {"HEALTHY"}


def seen_after(silence: timedelta, ask: Pages, platform: Platform) -> set[str]:
    """As Dagster's own daemon judges it then, and its pages show it."""
    with freeze_time(platform.now + silence):
        assert not [error for error in FreshnessDaemon().run_iteration(ask.process) if error]
        shown = ask("{assetNodes{assetKey{path} freshnessStatusInfo{freshnessStatus}}}")
    states = {"/".join(one["assetKey"]["path"]): one["freshnessStatusInfo"] for one in shown}
    return {states[key]["freshnessStatus"] for key in VIEW}
