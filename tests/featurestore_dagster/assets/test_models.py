"""From the container to Redis through Dagster, and the sensor that starts it."""

import uuid
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import redis
from azure.storage.blob import ContainerClient

from featurestore.definitions.project import Project
from featurestore.models.blobs import ModelBlobs
from featurestore.models.example import MODEL_ID
from featurestore.models.publish import ModelStore
from featurestore.settings import AzureSettings, Settings
from featurestore_dagster.assets.features import feature_assets
from featurestore_dagster.assets.models import model_assets
from featurestore_dagster.assets.raw import raw_assets, source_specs
from featurestore_dagster.build import build_definitions
from featurestore_dagster.names import Keys
from featurestore_dagster.partitions import key_of
from featurestore_dagster.sensors import models
from featurestore_dagster.testing import land, memory_resources
from tests.featurestore.models.examples import PROFILES, PROJECT, profile, project, pushed
from tests.services import Azurite

pytestmark = [pytest.mark.services, pytest.mark.slow]


class Way:
    """A container, the assets, the sensor and Redis."""

    def __init__(self, azurite: Azurite, redis_url: str, directory: Path, instance: dg.DagsterInstance) -> None:
        name = f"c{uuid.uuid4().hex}"
        self.container = ContainerClient.from_connection_string(azurite.connection_string, name)
        self.blobs, self.store = azurite.blobs(name), ModelStore(redis_url)
        self.resources = {**memory_resources(directory), "blobs": self.blobs, "models": self.store}
        self.instance, self.now, self.cursor = instance, datetime.now(UTC), ""
        self.sensor = models.sensor(
            lambda: self.blobs, lambda: ModelStore(redis_url), clock=lambda: self.now
        )  # a store is closed after each tick

    def promote(self, version: str) -> None:
        self.blobs.promote(MODEL_ID, version, actor="anna", now=datetime.now(UTC))

    def materialize(self, of: Project = PROJECT, tags: dict[str, str] | None = None) -> dg.ExecuteInProcessResult:
        keys = Keys()
        self.instance.add_dynamic_partitions("models", [MODEL_ID])
        return dg.materialize(
            model_assets(of),
            selection=dg.AssetSelection.assets(keys.models("metadata"), keys.models("production")),
            resources=self.resources,
            instance=self.instance,
            tags=tags,
            partition_key=MODEL_ID,
        )

    def tick(self) -> list[dg.RunRequest]:
        result: Any = self.sensor(dg.build_sensor_context(instance=self.instance, cursor=self.cursor or None))
        assert isinstance(result, dg.SensorResult), result
        self.cursor = result.cursor or self.cursor
        self.observed = list(result.asset_events)
        self.added = [key for one in result.dynamic_partitions_requests or () for key in one.partition_keys]
        return list(result.run_requests or ())

    def run(self, requests: list[dg.RunRequest], of: Project = PROJECT) -> None:
        [request] = requests
        assert self.materialize(of, dict(request.tags)).success

    @property
    def served(self) -> str:
        found = self.store.read_model(MODEL_ID)
        return found.manifest.version if found else ""


@pytest.fixture
def way(azurite: Azurite, redis_url: str, tmp_path: Path, instance: dg.DagsterInstance) -> Generator[Way]:
    way = Way(azurite, redis_url, tmp_path, instance)
    yield way
    way.blobs.close()
    way.store.close()
    way.container.close()


def test_a_promoted_version_is_logged_and_served(way: Way) -> None:
    way.blobs.push(*pushed("1"))
    assert way.materialize().success
    assert way.served == ""  # pushed, not promoted
    way.promote("1")
    result = way.materialize()
    assert way.served == "1"
    assert {check.check_name: check.passed for check in result.get_asset_check_evaluations()} == {
        "servable": True, "like_training": True,
    }  # fmt: skip
    with way.resources["duckdb"].get_connection() as connection:  # type: ignore[attr-defined]
        sql = "SELECT DISTINCT model_id, version, status FROM model_metadata"
        assert connection.execute(sql).fetchall() == [(MODEL_ID, "1", "production")]


def test_a_refused_version_says_why_and_leaves_the_served_one(way: Way) -> None:
    way.blobs.push(*pushed("1"))
    way.promote("1")
    way.materialize()
    way.blobs.push(*pushed("2"))
    way.promote("2")
    changed = project(profile(), ("age_years", "debt_to_income_ratio"))  # the project wants another order
    result = way.materialize(changed)
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert not checks["servable"].passed
    assert f"{MODEL_ID} 2, features: " in (checks["servable"].description or "")
    assert way.served == "1"


def test_a_change_of_the_container_is_observed_and_published_once(way: Way) -> None:
    assert way.tick() == []  # nothing there
    way.blobs.push(*pushed("1"))
    way.promote("1")
    requests = way.tick()
    assert [request.partition_key for request in requests] == way.added == [MODEL_ID]
    [observed] = way.observed
    assert (observed.asset_key, observed.partition) == (Keys().models("blobs"), MODEL_ID)
    [*_, last] = way.blobs.versions()
    assert observed.metadata["etag"].value == last.etag
    digests = {name: f"sha256 {one.sha256}" for one in last.metadata.artifacts for name in [one.azure_location]}
    assert {name: observed.metadata[name].value for name in digests} == digests
    way.run(requests)
    assert way.served == "1"
    way.now += timedelta(minutes=2)
    assert (way.tick(), way.observed) == ([], [])
    way.blobs.push(*pushed("2"))
    way.run(way.tick())  # for the log: nothing else is served
    assert way.served == "1"
    way.promote("2")
    way.run(way.tick())
    assert way.served == "2"


def test_an_emptied_redis_gets_its_models_back(way: Way, redis_url: str) -> None:
    way.blobs.push(*pushed("1"))
    way.promote("1")
    way.run(way.tick())
    way.now += timedelta(minutes=2)
    assert way.tick() == []
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    way.now += timedelta(minutes=2)
    way.run(way.tick())
    assert way.served == "1"


def test_what_is_refused_is_tried_again_ever_more_rarely(way: Way) -> None:
    way.blobs.push(*pushed("1"))
    way.promote("1")
    refusing = project(profile(), ("age_years", "debt_to_income_ratio"))
    tries: list[datetime] = []
    for _ in range(72):  # twelve hours
        for request in way.tick():
            tries.append(way.now)
            way.run([request], refusing)
        way.now += timedelta(minutes=10)
    assert 12 <= len(tries) <= 20
    way.run(way.tick() or [dg.RunRequest()])  # with the code put right
    assert way.served == "1"


def test_a_failed_publication_is_tried_again(way: Way) -> None:
    way.blobs.push(*pushed("1"))
    assert len(way.tick()) == 1  # and its run never comes to anything
    assert way.tick() == []
    way.now += timedelta(minutes=2)
    way.run(way.tick())
    way.now += timedelta(minutes=5)
    assert way.tick() == []
    way.now += timedelta(days=1)
    assert way.tick() == []


def test_one_publication_at_a_time(way: Way) -> None:
    way.blobs.push(*pushed("1"))
    [request] = way.tick()

    @dg.job
    def publication() -> None: ...

    way.instance.create_run_for_job(publication, tags=dict(request.tags), status=dg.DagsterRunStatus.STARTED)
    way.now += timedelta(hours=2)
    assert way.tick() == []


def test_no_container_is_a_skip_that_says_so(instance: dg.DagsterInstance) -> None:
    nowhere = "AccountName=a;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:1/a;"
    sensor = models.sensor(
        lambda: ModelBlobs(AzureSettings(connection_string=nowhere, timeout_s=1, tries=1)),
        lambda: ModelStore("redis://127.0.0.1:1"),
    )
    result: Any = sensor(dg.build_sensor_context(instance=instance))
    assert isinstance(result, dg.SkipReason)
    assert "does not answer" in (result.skip_message or "")


def test_lineage_goes_from_features_over_the_training_set_to_the_model() -> None:
    keys, graph = Keys(), build_definitions(PROJECT, Settings()).resolve_asset_graph()
    training_set = keys.trained_on(MODEL_ID)
    production = graph.get(keys.models("production"))
    assert production.parent_keys >= {training_set, keys.online("credit_profile"), keys.models("metadata")}
    assert graph.get(training_set).parent_keys == {keys.features("credit_profile")}
    assert graph.get(training_set).child_keys == {keys.models("production")}


def test_the_training_set_is_observed_by_its_receipt(way: Way) -> None:
    receipt = {"features": ["debt_to_income_ratio", "age_years"], "rows": 7, "sha256": "abc", "commit_seq": 5}
    way.blobs.push(*pushed("1", receipt=receipt))
    way.promote("1")
    assert way.materialize().success
    event = way.instance.get_latest_data_version_record(Keys().trained_on(MODEL_ID))
    assert event is not None
    assert event.asset_observation.metadata["sha256"].value == "abc"
    assert event.asset_observation.metadata["model_version"].value == "1"


@pytest.mark.parametrize(("shift", "is_far"), [(0.0, False), (3.0, True)])
def test_values_far_from_the_training_sets_are_a_warning(way: Way, shift: float, *, is_far: bool) -> None:
    """The receipt's quantiles against the log's newest values; the model is served all the same."""
    land_profiles(way, [number / 200 + shift for number in range(200)])
    quantiles = {"0.05": 0.05, "0.5": 0.5, "0.95": 0.95}
    statistics = {"debt_to_income_ratio": {"count": 200, "nulls": 0, "quantiles": quantiles}}
    receipt = {"features": ["debt_to_income_ratio", "age_years"], "statistics": statistics}
    way.blobs.push(*pushed("1", receipt=receipt))
    way.promote("1")
    checks = {check.check_name: check for check in way.materialize().get_asset_check_evaluations()}
    found = checks["like_training"]
    assert (found.passed, found.severity) == (not is_far, dg.AssetCheckSeverity.WARN)
    assert ("debt_to_income_ratio: its newest values are at a distance of 0.95" in str(found.description)) is is_far
    assert (checks["servable"].passed, way.served) == (True, "1")


def land_profiles(way: Way, ratios: list[float]) -> None:
    now = datetime.now(UTC)
    rows = [
        {"user_id": user, "as_of": now, "income": 1.0, "debt": ratio, "age_years": 30}
        for user, ratio in enumerate(ratios)
    ]
    batch = land(way.resources, PROFILES, rows, created_at=now)
    assets = [*source_specs(PROJECT), *raw_assets(PROJECT), *feature_assets(PROJECT)]
    assert dg.materialize(
        assets, partition_key=key_of(batch.hour), resources=way.resources, instance=way.instance
    ).success
