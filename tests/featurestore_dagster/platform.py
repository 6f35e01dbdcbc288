"""A small platform in one process: memory resources, Dagster's own records, clocks that stand still."""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from dagster._core.test_utils import freeze_time

from featurestore.definitions.entity import Entity
from featurestore.definitions.feature import Aggregation, Feature
from featurestore.definitions.project import Project
from featurestore.definitions.source import KafkaSource
from featurestore.definitions.view import FeatureView
from featurestore.errors import StoreUnavailableError
from featurestore.landing.batch import Batch
from featurestore.landing.zone import LandingZone
from featurestore.settings import DagsterSettings
from featurestore_dagster.assets.features import feature_assets
from featurestore_dagster.assets.online import ENTITY_PIECES, online_rebuild
from featurestore_dagster.assets.raw import raw_assets, source_specs
from featurestore_dagster.sensors import landed, online_lost
from featurestore_dagster.services import Connect
from featurestore_dagster.testing import MemoryResources, land, memory_services

USER = Entity("user", key="user_id")
CLICKS = KafkaSource("clicks", timestamp="at", schema={"user_id": int, "page": str})
LAST = FeatureView(
    "last_click",
    USER,
    CLICKS,
    [Feature("page", str, online=True), Aggregation("clicks", "count", windows=("1h",), online=True)],
)
PROJECT = Project((LAST,))
SETTINGS = DagsterSettings(lanes=2, run_interval_s=10)


class Platform:
    """A project's sensor and runs; the clock stands still until it is told."""

    def __init__(self, resources: MemoryResources, instance: dg.DagsterInstance) -> None:
        self.resources, self.instance = resources, instance
        self.now = datetime.now(UTC)
        self.cursor: str | None = None
        self.said = ""
        self.use(PROJECT)

    def use(self, project: Project) -> None:
        """As after a reload of the code."""
        self.project = project
        self.connect: Connect = memory_services(self.resources)
        self.sensor = landed.sensor(project, lambda: self.connect(), SETTINGS, clock=lambda: self.now)
        self.assets = [*source_specs(project), *raw_assets(project), *feature_assets(project)]

        self.jobs: dict[int, dg.JobDefinition] = {}

    @property
    def job(self) -> dg.JobDefinition:
        """With the online store as it is now."""
        online = id(self.resources["online"])
        if online not in self.jobs:
            definitions = dg.Definitions(assets=self.assets, sensors=[self.sensor], resources=self.resources)
            self.jobs[online] = definitions.resolve_job_def(landed.JOB)
        return self.jobs[online]

    @property
    def zone(self) -> LandingZone:
        zone = self.resources["landing"]
        assert isinstance(zone, LandingZone)
        return zone

    def land(self, *pages: str, at: datetime | None = None) -> Batch:
        rows = [{"user_id": number, "at": self.now, "page": page} for number, page in enumerate(pages)]
        return land(self.resources, CLICKS, rows, created_at=at or self.now)

    def tick(self) -> list[dg.RunRequest]:
        with freeze_time(self.now):
            result: Any = self.sensor(dg.build_sensor_context(instance=self.instance, cursor=self.cursor))
        self.said = ""
        if isinstance(result, dg.SkipReason):
            self.said = result.skip_message or ""
            return []
        self.cursor = result.cursor
        self.said = result.skip_reason.skip_message if result.skip_reason else ""
        return list(result.run_requests or ())

    def run(self, request: dg.RunRequest) -> bool:
        """Do what a request asks for, with Dagster's records, and without its queue."""
        assert request.asset_selection is not None
        job = self.job.get_subset(
            asset_selection=set(request.asset_selection), asset_check_selection=set(request.asset_check_keys or ())
        )
        with freeze_time(self.now):
            return job.execute_in_process(
                instance=self.instance,
                partition_key=request.partition_key,
                run_config=dict(request.run_config),
                tags=dict(request.tags),
                raise_on_error=False,
            ).success

    def look_for_loss(self, after: timedelta = timedelta(0)) -> Any:
        """A tick of the sensor of what the online store has lost."""
        sensor = online_lost.sensor(self.project, lambda: self.connect(), clock=lambda: self.now + after)
        return sensor(dg.build_sensor_context(instance=self.instance))

    def rebuild(self, request: dg.RunRequest | None = None) -> bool:
        """Fill the online store as a request asks for, by default whole."""
        first, last = (ENTITY_PIECES.get_partition_keys()[place] for place in (0, -1))
        tags = {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}
        definitions = dg.Definitions(assets=[online_rebuild(self.project)], resources=self.resources)
        job = definitions.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            instance=self.instance,
            run_config=dict(request.run_config) if request else None,
            tags=dict(request.tags) if request else tags,
            raise_on_error=False,
        ).success

    def queue(self, request: dg.RunRequest, status: dg.DagsterRunStatus) -> str:
        """Leave a run behind in a status."""
        with freeze_time(self.now):
            run = self.instance.create_run_for_job(
                self.job, run_config=dict(request.run_config), tags=dict(request.tags), status=status
            )
        return run.run_id

    def settle(self) -> None:
        """Tick and run until nothing is requested."""
        for _ in range(20):
            requests = self.tick()
            if not requests:
                return
            for request in requests:
                self.run(request)
            self.now += timedelta(seconds=10)
        raise AssertionError("there is no end to it")


def spoil(platform: Platform, sql: str) -> None:
    """Change the log behind everyone's back."""
    with dg.build_resources({"database": platform.resources["database"]}) as built:
        built.database._connection.execute(sql)


class Down:
    """A service that does not answer."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise StoreUnavailableError("Redis", "127.0.0.1:1", "refused")
