"""What Prometheus is told: a platform in one process, with Dagster's own records."""

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.test_utils import create_run_for_test
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster_shared.error import SerializableErrorInfo
from prometheus_client import CollectorRegistry

from featurestore.errors import StoreUnavailableError
from featurestore.landing.pending import PARKED_AFTER, Trouble
from featurestore.process.health import Health
from featurestore.settings import Settings
from featurestore_dagster.exporter.daemon import Exporter
from featurestore_dagster.sensors.cursor import Cursor
from featurestore_dagster.services import Connect, Services
from tests.featurestore_dagster.platform import PROJECT, Down, Platform


class Watched:
    """A platform and an exporter that looks at it."""

    def __init__(self, platform: Platform, data_dir: Path) -> None:
        self.platform, self.registry, self.health = platform, CollectorRegistry(), Health()
        connect: Connect = lambda: platform.connect()  # noqa: E731  # the platform may change it
        self.exporter = Exporter(
            Settings(data_dir=data_dir),
            PROJECT,
            open_instance=lambda: platform.instance,
            connect=connect,
            health=self.health,
            registry=self.registry,
        )
        self.exporter.start()
        self.exporter.step()

    def look(self) -> None:
        self.exporter.step()

    def __call__(self, metric: str, /, **labels: str) -> float | None:
        return self.registry.get_sample_value(metric, labels)


@pytest.fixture(scope="module")
def new_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Storage on disk, because one in memory knows no ticks; made once, because that takes seconds."""
    home = tmp_path_factory.mktemp("dagster")
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        instance.all_instigator_state()
    return home


@pytest.fixture
def instance(new_home: Path, tmp_path: Path) -> Generator[dg.DagsterInstance]:
    home = tmp_path / "dagster"
    shutil.copytree(new_home, home)
    with dg.DagsterInstance.local_temp(str(home)) as local:
        yield local


@pytest.fixture
def watched(platform: Platform, tmp_path: Path) -> Watched:
    return Watched(platform, tmp_path)


def test_what_waits_is_counted_until_it_is_applied(watched: Watched) -> None:
    platform = watched.platform
    batch = platform.land("a", "b", "c")
    platform.land("d", at=batch.created_at + timedelta(seconds=1))
    watched.look()
    assert watched("fs_pending_batches", source="clicks") == 2
    assert watched("fs_pending_rows", source="clicks") == 4
    assert watched("fs_pending_oldest_timestamp_seconds", source="clicks") == batch.created_at.timestamp()
    platform.settle()
    watched.look()
    assert watched("fs_pending_batches", source="clicks") == 0
    assert watched("fs_pending_oldest_timestamp_seconds", source="clicks") is None


def test_rows_and_pushed_entities_are_counted_once(watched: Watched) -> None:
    watched.platform.land("a", "b", "c")
    watched.platform.settle()
    for _ in range(2):
        watched.look()
        assert watched("fs_feature_rows_total", view="last_click", outcome="logged") == 3
        assert watched("fs_online_push_total", view="last_click", outcome="written") == 3
        assert watched("fs_online_push_total", view="last_click", outcome="stale") == 0
        assert watched("fs_dagster_runs_ended_total", status="success") == 1


def test_what_ran_before_the_exporter_is_not_counted(platform: Platform, tmp_path: Path) -> None:
    platform.land("a")
    platform.settle()
    late = Watched(platform, tmp_path)
    late.look()
    assert late("fs_feature_rows_total", view="last_click", outcome="logged") == 0


def test_assets_and_checks_have_a_state(watched: Watched) -> None:
    assert watched("fs_asset_materialized_timestamp_seconds", asset="features/last_click") is None
    watched.platform.land("a")
    watched.platform.settle()
    watched.look()
    assert watched("fs_asset_materialized_timestamp_seconds", asset="features/last_click")
    assert watched("fs_asset_failed", asset="features/last_click") == 0
    assert watched("fs_asset_check_passed", asset="features/last_click", check="expectations") == 1


def test_every_status_of_runs_has_a_number(watched: Watched) -> None:
    origin = RemoteJobOrigin(repository(), "apply_batches")
    create_run_for_test(watched.platform.instance, status=dg.DagsterRunStatus.QUEUED, remote_job_origin=origin)
    watched.look()
    assert watched("fs_dagster_runs", status="QUEUED") == 1
    assert watched("fs_dagster_runs", status="FAILURE") == 0
    assert watched("fs_dagster_oldest_queued_timestamp_seconds")


def test_waiting_too_long_is_a_late_probe(watched: Watched) -> None:
    good, late = ({"source": "clicks", "outcome": outcome} for outcome in ("good", "late"))
    assert (watched("fs_freshness_probes_total", **good), watched("fs_freshness_probes_total", **late)) == (1, 0)
    watched.platform.land("a", at=watched.platform.now - timedelta(minutes=5))
    watched.look()
    assert (watched("fs_freshness_probes_total", **good), watched("fs_freshness_probes_total", **late)) == (1, 1)


def test_while_a_service_is_down_the_last_look_stays(watched: Watched) -> None:
    watched.platform.land("a")
    watched.look()
    seen = watched("fs_exporter_look_timestamp_seconds")
    whole = watched.platform.connect

    @contextmanager
    def without() -> Generator[Services]:
        with whole() as services:
            yield replace(services, database=Down())

    watched.platform.connect = without
    with pytest.raises(StoreUnavailableError):
        watched.look()
    assert watched("fs_pending_batches", source="clicks") == 1
    assert watched("fs_exporter_look_timestamp_seconds") == seen


def test_ticks_and_parked_batches_are_those_of_the_daemon(watched: Watched) -> None:
    """As the daemon keeps them: the state of the sensor with its cursor, and its ticks."""
    platform = watched.platform
    batch = platform.land("a")
    trouble = Trouble(own_failures=PARKED_AFTER, at=platform.now, not_before=platform.now)
    cursor = Cursor(failures_until=platform.now, troubles={batch.batch_id: trouble})
    keep_failed_tick(platform, cursor)
    watched.look()
    assert watched("fs_parked_batches", source="clicks") == 1
    assert watched("fs_pending_batches", source="clicks") == 0
    assert watched("fs_dagster_tick_failed", name="landed_batches", kind="sensor") == 1
    assert (
        watched("fs_dagster_tick_timestamp_seconds", name="landed_batches", kind="sensor") == platform.now.timestamp()
    )


def keep_failed_tick(platform: Platform, cursor: Cursor) -> None:
    origin = RemoteInstigatorOrigin(repository(), platform.sensor.name)
    platform.instance.add_instigator_state(
        InstigatorState(
            origin,
            InstigatorType.SENSOR,
            InstigatorStatus.DECLARED_IN_CODE,
            SensorInstigatorData(cursor=cursor.to_json()),
        )
    )
    platform.instance.create_tick(
        TickData(
            instigator_origin_id=origin.get_id(),
            instigator_name=platform.sensor.name,
            instigator_type=InstigatorType.SENSOR,
            status=TickStatus.FAILURE,
            timestamp=platform.now.timestamp(),
            selector_id=origin.get_selector().get_id(),
            error=SerializableErrorInfo("refused", [], "Error"),
        )
    )


def repository() -> RemoteRepositoryOrigin:
    target = ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name="features"), "features")
    return RemoteRepositoryOrigin(target, "__repository__")
