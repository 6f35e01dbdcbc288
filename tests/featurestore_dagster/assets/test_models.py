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
from featurestore.settings import AzureSettings
from featurestore_dagster.assets.models import model_assets
from featurestore_dagster.names import Keys
from featurestore_dagster.sensors import models
from featurestore_dagster.testing import memory_resources
from tests.featurestore.models.examples import PROJECT, profile, project, pushed
from tests.services import Azurite

pytestmark = pytest.mark.services


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
        selection = dg.AssetSelection.assets(keys.models("metadata"), keys.models("production"))
        return dg.materialize(
            model_assets(of), selection=selection, resources=self.resources, instance=self.instance, tags=tags
        )

    def tick(self) -> list[dg.RunRequest]:
        result: Any = self.sensor(dg.build_sensor_context(instance=self.instance, cursor=self.cursor or None))
        assert isinstance(result, dg.SensorResult), result
        self.cursor = result.cursor or self.cursor
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
    assert [check.passed for check in result.get_asset_check_evaluations()] == [True]
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
    [check] = result.get_asset_check_evaluations()
    assert not check.passed
    assert f"{MODEL_ID} 2, features: " in (check.description or "")
    assert way.served == "1"


def test_a_change_of_the_container_is_published_once(way: Way) -> None:
    assert way.tick() == []  # nothing there
    way.blobs.push(*pushed("1"))
    way.promote("1")
    way.run(way.tick())
    assert way.served == "1"
    way.now += timedelta(minutes=2)
    assert way.tick() == []
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
