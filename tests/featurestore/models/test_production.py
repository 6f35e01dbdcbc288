"""From the container through the log to Redis."""

import random
import threading
import uuid
from collections.abc import Generator
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import pytest
import redis
from azure.storage.blob import ContainerClient
from onnx import TensorProto

from featurestore.database.embedded import EmbeddedDatabase
from featurestore.errors import StoreUnavailableError, TransientError
from featurestore.models.blobs import ModelBlobs
from featurestore.models.example import MODEL_ID
from featurestore.models.log import metadata_job, productions
from featurestore.models.memory import MemoryBlobs, MemoryModelStore
from featurestore.models.metadata import Golden, ModelVersion
from featurestore.models.production import Outcome, bring
from featurestore.models.publish import ModelStore
from featurestore.settings import AzureSettings
from tests.featurestore.models.examples import (
    NOW,
    PROJECT,
    linear,
    profile,
    project,
    pushed,
    scoring,
    with_artifacts,
)
from tests.featurestore.online.faults import Way as Faults
from tests.featurestore.online.faults import way_to
from tests.services import Azurite

pytestmark = pytest.mark.services

SERVICES, MEMORY = "services", "memory"  # the container and Redis, or what tests of users have in their place
everywhere = pytest.mark.parametrize("way", [SERVICES, MEMORY], indirect=True)


@dataclass
class Way:
    """Everything between a push and a reader."""

    blobs: ModelBlobs | MemoryBlobs
    container: ContainerClient
    database: EmbeddedDatabase
    store: ModelStore | MemoryModelStore

    def promote(self, version: str, **more: str) -> None:
        self.blobs.promote(MODEL_ID, version, actor="anna", now=NOW, **more)

    def log(self) -> None:
        self.database.append(metadata_job(self.blobs.scan().versions))

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
def way(request: pytest.FixtureRequest, azurite: Azurite, redis_url: str) -> Generator[Way]:
    name = f"c{uuid.uuid4().hex}"
    with ContainerClient.from_connection_string(azurite.connection_string, name) as container:
        if getattr(request, "param", SERVICES) == SERVICES:
            way = Way(azurite.blobs(name), container, EmbeddedDatabase(), ModelStore(redis_url))
        else:
            way = Way(MemoryBlobs(), container, EmbeddedDatabase(), MemoryModelStore())
        for version in "12":
            way.blobs.push(*pushed(version))
        yield way
        way.blobs.close()
        way.database.close()
        way.store.close()


@everywhere
def test_only_what_is_promoted_is_served(way: Way) -> None:
    way.log()
    assert productions(way.database) == []
    way.promote("1")
    outcome = way.run()
    assert (outcome.version, outcome.published, outcome.refusals) == ("1", True, ())
    assert (way.served, way.store.model_ids()) == ("1", {MODEL_ID})
    assert not way.run().published


@everywhere
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


@everywhere
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


# ---- a container that is slow, or breaks off


def endpoint(azurite: Azurite) -> str:
    return dict(part.split("=", 1) for part in azurite.connection_string.split(";") if part)["BlobEndpoint"]


def disturbed(azurite: Azurite, way: Faults, container: str) -> ModelBlobs:
    """The container behind a way on which something happens."""
    port = urlsplit(endpoint(azurite)).port
    text = azurite.connection_string.replace(f":{port}", f":{urlsplit(way.url).port}")
    return ModelBlobs(AzureSettings(connection_string=text, container=container, timeout_s=2.0, tries=1))


@pytest.fixture
def faults(azurite: Azurite) -> Generator[Faults]:
    with way_to(endpoint(azurite)) as way:
        yield way


def test_a_container_that_breaks_off_at_any_moment_leaves_the_served_one(
    way: Way, azurite: Azurite, faults: Faults
) -> None:
    """A version is pushed, promoted and published while connections are cut, until it is through."""
    way.promote("1")
    way.run()
    dice, broken = random.Random(3), 0
    cut = disturbed(azurite, faults, way.container.container_name)
    for version in "34":
        before = way.served
        for _ in range(100):
            faults.after(dice.randint(1, 30_000), lambda: True)
            try:
                cut.push(*pushed(version))
                cut.promote(MODEL_ID, version, actor="anna", now=NOW)
                way.log()
                [wanted] = productions(way.database)
                assert bring(wanted, cut.scan(), cut, way.store, PROJECT).refusals == ()
                break
            except TransientError:
                broken += 1
                assert way.served == before
        assert way.served == version
    assert broken
    cut.close()


def test_a_container_that_does_not_answer_is_an_error_in_bounded_time(
    way: Way, azurite: Azurite, faults: Faults
) -> None:
    way.promote("1")
    way.run()
    way.promote("2")
    way.log()
    [wanted] = productions(way.database)
    answer = threading.Event()
    slow = disturbed(azurite, faults, way.container.container_name)
    scan = slow.scan()
    faults.after(1, lambda: answer.wait(20) and False)
    with pytest.raises(StoreUnavailableError, match="Azure Blob Storage does not answer"):
        bring(wanted, scan, slow, way.store, PROJECT)
    assert not answer.is_set()  # nobody waited for it
    assert way.served == "1"
    answer.set()
    slow.close()


# ---- artifacts that are not what they should be


@pytest.mark.parametrize(
    ("artifacts", "what"),
    [
        ({"model": linear(1, 2, 3)}, "inputs"),
        ({"model": linear(2, 1)}, "golden"),
        ({"model": linear(1, 2, dtype=TensorProto.INT32)}, "onnx"),
        ({"model": linear(1, 2)[:-40]}, "onnx"),
    ],
)
def test_a_model_of_another_kind_is_never_published(way: Way, artifacts: dict[str, bytes], what: str) -> None:
    """Described as it is, so that only what it does gives it away."""
    way.promote("1")
    way.run()
    good = linear(1, 2)
    made, _ = scoring(PROJECT.models[0], "3", artifacts["model"])
    golden = tuple(Golden(inputs=row, score=row[0] + 2 * row[1]) for row in ((1.0, 5), (3.0, 4)))
    staged = tuple(replace(one, azure_location=f"{MODEL_ID}/3/model.onnx") for one in made.artifacts)
    version = replace(made, status="staging", promotion=0, artifacts=staged, golden=golden)
    way.blobs.push(version, artifacts)
    way.promote("3")
    outcome = way.run()
    assert {refusal.what for refusal in outcome.refusals} == {what}
    assert (outcome.published, way.served) == (False, "1")
    way.blobs.push(*with_model(version, "4", good))  # the same with the right file is
    way.promote("4")
    assert (way.run().published, way.served) == (True, "4")


def with_model(version: ModelVersion, number: str, data: bytes) -> tuple[ModelVersion, dict[str, bytes]]:
    moved = tuple(replace(one, azure_location=f"{MODEL_ID}/{number}/model.onnx") for one in version.artifacts)
    return with_artifacts(replace(version, version=number, artifacts=moved), {"model": data}), {"model": data}
