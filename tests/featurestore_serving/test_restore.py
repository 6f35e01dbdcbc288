"""A server that starts looks the models in production up, and puts back what Redis has lost."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis

from featurestore.database.client import QueueDatabase
from featurestore.models.blobs import ModelBlobs
from featurestore.models.example import MODEL_ID
from featurestore.models.log import metadata_job
from featurestore.models.publish import ModelStore
from featurestore.settings import RedisSettings, ServerSettings, Settings
from featurestore_serving import restore
from tests.featurestore.database.serving import on_a_thread
from tests.featurestore.models.examples import PROJECT, pushed
from tests.featurestore_serving.platform import running
from tests.services import Azurite, eventually, redis_process

pytestmark = pytest.mark.services


@pytest.fixture(autouse=True)
def long_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the database service answers, if it is there."""
    monkeypatch.setattr(restore, "LOOK_UP_S", 2.0)


@pytest.fixture
def given(azurite: Azurite, redis_url: str, tmp_path: Path) -> Settings:
    """Version 1 of the example model is in production: so says the container."""
    azure = replace(azurite.settings, container=f"c{uuid.uuid4().hex}")
    server = ServerSettings(address="127.0.0.1:0", grpc_address="", drain_s=0.0)
    return Settings(data_dir=tmp_path, redis=RedisSettings(url=redis_url), azure=azure, server=server)


def promote(settings: Settings, version: str) -> None:
    blobs = ModelBlobs(settings.azure)
    blobs.push(*pushed(version))
    blobs.promote(MODEL_ID, version, actor="anna", now=datetime.now(UTC))
    blobs.close()


def log(settings: Settings) -> None:
    blobs, database = ModelBlobs(settings.azure), QueueDatabase(settings.redis.queues)
    database.append(metadata_job(blobs.versions()))
    database.close()
    blobs.close()


def served(settings: Settings) -> str | None:
    store = ModelStore(settings.redis.models)
    found = store.read_model(MODEL_ID)
    store.close()
    return found.manifest.version if found else None


def test_a_flushed_redis_has_its_models_before_the_server_is_ready(given: Settings) -> None:
    promote(given, "1")
    with on_a_thread(given):
        log(given)
        assert served(given) is None
        with running(given, project=PROJECT):
            assert served(given) == "1"
        promote(given, "2")
        log(given)
        with running(given, project=PROJECT):  # what was promoted while nobody published
            assert served(given) == "2"


def test_without_an_answer_it_waits_unless_redis_has_a_word_on_every_model(given: Settings) -> None:
    with running(given, project=PROJECT, ready=False) as server:
        eventually(lambda: "no reply from the database service" in server.health.note)
        assert server.get("/ready").status == server.get("/v2/health/ready").status == 503
        assert server.get("/v2/health/live").status == 200
        store = ModelStore(given.redis.models)
        store.withdraw(MODEL_ID, 1)
        store.close()
        eventually(lambda: server.get("/ready").status == 200)


def test_a_container_that_is_not_set_is_named(given: Settings) -> None:
    promote(given, "1")
    with on_a_thread(given):
        log(given)
        nowhere = replace(given, azure=replace(given.azure, connection_string=""))
        with running(nowhere, project=PROJECT, ready=False) as server:
            eventually(lambda: "there is no blob storage" in server.health.note)


def test_a_model_that_is_refused_or_was_never_promoted_keeps_no_server_waiting(given: Settings) -> None:
    with on_a_thread(given):
        with running(given, project=PROJECT):
            assert served(given) is None
        blobs = ModelBlobs(given.azure)
        blobs.push(*pushed("1", golden=()))
        blobs.promote(MODEL_ID, "1", actor="anna", now=datetime.now(UTC))
        blobs.close()
        log(given)
        with running(given, project=PROJECT):
            assert served(given) is None


def test_the_models_of_a_cluster_lie_beside_its_queues(given: Settings, tmp_path: Path) -> None:
    """The switch of a model changes keys of several slots at once, which a cluster does not."""
    with redis_process(tmp_path / "queues") as queues:
        own = replace(given, redis=RedisSettings(url="redis+cluster://127.0.0.1:1", queue_url=queues.url))
        promote(own, "1")
        with on_a_thread(replace(own, redis=RedisSettings(url=queues.url))):
            log(own)
            store = ModelStore(own.redis.models)
            restore.restore(own, PROJECT, store)
            store.close()
            assert served(own) == "1"
            with redis.Redis.from_url(queues.url) as client:
                assert client.sismember("prod_models", MODEL_ID)
