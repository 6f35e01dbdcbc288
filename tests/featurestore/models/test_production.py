"""From the container through the log to Redis."""

import uuid
from collections.abc import Generator
from dataclasses import dataclass, replace

import pytest
import redis
from azure.storage.blob import ContainerClient

from featurestore.database.embedded import EmbeddedDatabase
from featurestore.models.blobs import ModelBlobs
from featurestore.models.example import MODEL_ID
from featurestore.models.log import metadata_job, productions
from featurestore.models.production import Outcome, bring
from featurestore.models.publish import ModelStore
from tests.featurestore.models.examples import NOW, PROJECT, profile, project, pushed
from tests.services import Azurite

pytestmark = pytest.mark.services


@dataclass
class Way:
    """Everything between a push and a reader."""

    blobs: ModelBlobs
    container: ContainerClient
    database: EmbeddedDatabase
    store: ModelStore

    def promote(self, version: str, **more: str) -> None:
        self.blobs.promote(MODEL_ID, version, actor="anna", now=NOW, **more)

    def log(self) -> None:
        self.database.append(metadata_job(self.blobs.versions()))

    def run(self, of: object = PROJECT) -> Outcome:
        """What the assets do when something changed."""
        self.log()
        [wanted] = productions(self.database)
        return bring(wanted, self.blobs.scan(), self.blobs, self.store, of)

    @property
    def served(self) -> str:
        found = self.store.read_model(MODEL_ID)
        return "" if found is None else found.manifest.version


@pytest.fixture
def way(azurite: Azurite, redis_url: str) -> Generator[Way]:
    name = f"c{uuid.uuid4().hex}"
    with ContainerClient.from_connection_string(azurite.connection_string, name) as container:
        way = Way(azurite.blobs(name), container, EmbeddedDatabase(), ModelStore(redis_url))
        for version in "12":
            way.blobs.push(*pushed(version))
        yield way
        way.blobs.close()
        way.database.close()
        way.store.close()


def test_only_what_is_promoted_is_served(way: Way) -> None:
    way.log()
    assert productions(way.database) == []
    way.promote("1")
    outcome = way.run()
    assert (outcome.version, outcome.published, outcome.refusals) == ("1", True, ())
    assert (way.served, way.store.model_ids()) == ("1", {MODEL_ID})
    assert not way.run().published


def test_rollback_and_retirement(way: Way) -> None:
    for version in "121":
        way.promote(version)
    assert (way.run().version, way.served) == ("1", "1")
    way.promote("1", status="retired")
    assert (way.run().version, way.served) == ("2", "2")
    way.promote("2", status="retired")
    assert (way.run(), way.served) == (replace(way.run(), published=True), "")
    assert way.store.model_ids() == frozenset()
    way.promote("1")
    assert (way.run().version, way.served) == ("1", "1")


def test_the_log_says_each_thing_once(way: Way) -> None:
    way.promote("1")
    way.log()
    way.log()
    rows = way.database.query_arrow("SELECT version, status, artifact_type FROM model_metadata_log ORDER BY ALL")
    assert [tuple(row.values()) for row in rows.to_pylist()] == [
        ("1", "production", "model"), ("1", "production", "scaler"), ("1", "staging", "model"),
        ("1", "staging", "scaler"), ("2", "staging", "model"), ("2", "staging", "scaler"),
    ]  # fmt: skip


@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_a_damaged_version_leaves_the_served_one_untouched(way: Way, damage: str) -> None:
    way.promote("1")
    way.run()
    way.promote("2")
    name = f"{MODEL_ID}/2/model.onnx.production"
    data = bytearray(way.container.download_blob(name).readall())
    if damage == "delete":
        way.container.delete_blob(name)
    else:
        data[50] ^= 1
        way.container.upload_blob(name, bytes(data[:60] if damage == "cut" else data), overwrite=True)
    outcome = way.run()
    assert [refusal.what for refusal in outcome.refusals] == ["artifact"]
    assert (outcome.published, way.served) == (False, "1")


def test_metadata_that_changed_after_it_was_logged_is_refused(way: Way) -> None:
    way.promote("1")
    way.log()
    name = f"{MODEL_ID}/metadata.000001.json"
    way.container.upload_blob(name, way.container.download_blob(name).readall(), overwrite=True)
    [wanted] = productions(way.database)
    outcome = bring(wanted, way.blobs.scan(), way.blobs, way.store, PROJECT)
    assert "is not in the container any more" in str(outcome.refusals[0])
    assert way.served == ""
    assert way.run().published  # once the log knows the file as it is now


def test_a_project_that_changed_refuses(way: Way) -> None:
    way.promote("1")
    outcome = way.run(project(profile(version=2)))
    assert "versions" in {refusal.what for refusal in outcome.refusals}
    assert way.served == ""


def test_a_model_that_redis_lost_is_brought_back(way: Way, redis_url: str) -> None:
    way.promote("1")
    way.run()
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        assert way.run().published
        client.delete(f"model:{MODEL_ID}:onnx")
        assert way.run().published
        client.srem("prod_models", MODEL_ID)
        assert way.run().published
    assert (way.served, way.store.model_ids()) == ("1", {MODEL_ID})
