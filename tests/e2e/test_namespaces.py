"""Two projects with different namespaces on the same Kafka, Redis and Azurite, in one code location, never see each
other."""

import uuid
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec
import pytest
import redis
from azure.storage.blob import BlobServiceClient
from confluent_kafka import Producer

from featurestore.database.client import QueueDatabase
from featurestore.models.blobs import ModelBlobs
from featurestore.models.example import MODEL_ID, example, push_example
from featurestore.models.publish import ModelStore
from featurestore.offline.tables import schema_job
from featurestore.online.redis_store import RedisOnlineStore
from featurestore.settings import IngestSettings, KafkaSettings, RedisSettings, Settings
from featurestore.store import Store
from featurestore_cli.stack import kafka as broker
from featurestore_cli.stack.jobs import create_topics
from featurestore_dagster.build import build_definitions
from featurestore_dagster.features.project import PROJECT
from featurestore_dagster.features.user import USER_ACTIVITY, USER_EVENTS
from featurestore_dagster.names import LANDED_SENSOR, Keys
from featurestore_dagster.sensors.landed import JOB
from tests.featurestore.database.serving import on_a_thread
from tests.ingest.kafka.conftest import daemon, landed
from tests.services import Azurite, Kafka

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(300)]

BLUE, GREEN = 1, 2  # users; each is known to one project


@dataclass(frozen=True)
class Side:
    """A project at work."""

    settings: Settings
    store: Store

    def ingest(self, user_id: int, location: dg.Definitions, instance: dg.DagsterInstance) -> None:
        """An event of the user, from the topic to Redis, by the sensor and the job of the project."""
        topic = self.settings.name(USER_EVENTS.topic_name, ".")
        event = {"user_id": user_id, "action": f"of {user_id}", "timestamp": datetime.now(UTC).isoformat()}
        producer = Producer({"bootstrap.servers": self.settings.kafka.brokers})
        producer.produce(topic, msgspec.json.encode(event), str(user_id).encode())
        assert producer.flush(30) == 0
        with daemon(self.settings, PROJECT) as service:
            service.until(lambda: bool(landed(self.settings, USER_EVENTS.name)))
        keys = Keys(self.settings.namespace)
        looked: Any = location.resolve_sensor_def(keys.name(LANDED_SENSOR))(dg.build_sensor_context(instance=instance))
        [request] = looked.run_requests
        job = location.resolve_job_def(keys.name(JOB)).get_subset(asset_selection=set(request.asset_selection))
        run_config, tags = dict(request.run_config), dict(request.tags)
        assert job.execute_in_process(
            instance=instance, partition_key=request.partition_key, run_config=run_config, tags=tags
        ).success

    def known(self) -> tuple[set[str], list[object]]:
        """Whom the log knows, and what Redis says of both users."""
        logged = self.store.database.query_arrow("SELECT DISTINCT entity_id FROM features")["entity_id"].to_pylist()
        rows = self.store.online({"user_id": [BLUE, GREEN]}, [USER_ACTIVITY["last_action"]])
        return set(logged), [row["last_action"].value for row in rows]


@contextmanager
def side(settings: Settings) -> Generator[Side]:
    create_topics(settings)
    with (
        on_a_thread(settings, schema_job(PROJECT)),
        closing(QueueDatabase.of(settings)) as database,
        closing(RedisOnlineStore(settings.redis.url, namespace=settings.namespace)) as online,
    ):
        yield Side(settings, Store(PROJECT, database, online))


@pytest.fixture
def given(tmp_path: Path, kafka: Kafka, redis_url: str, azurite: Azurite) -> tuple[Settings, Settings]:
    """Of the two, which differ in their namespaces and data directories alone."""
    blue, green = (
        Settings(
            data_dir=tmp_path / name,
            namespace=name + uuid.uuid4().hex[:6],
            kafka=KafkaSettings(brokers=kafka.brokers),
            redis=RedisSettings(url=redis_url),
            azure=azurite.settings,
            ingest=IngestSettings(batch_age_s=0.1, disk_reserve_bytes=0),
        )
        for name in ("blue", "green")
    )
    return blue, green


def test_what_one_does_is_not_there_for_the_other(given: tuple[Settings, Settings]) -> None:
    location = dg.Definitions.merge(*(build_definitions(PROJECT, settings) for settings in given))
    with dg.instance_for_test() as instance, side(given[0]) as blue, side(given[1]) as green:
        blue.ingest(BLUE, location, instance)
        green.ingest(GREEN, location, instance)
        assert blue.known() == ({"1"}, ["of 1", None])
        assert green.known() == ({"2"}, [None, "of 2"])
    assert push_example(given[0])
    publish(given[0])
    assert [models(settings) for settings in given] == [(1, {MODEL_ID}), (0, set())]
    assert {key.path[0] for key in location.resolve_all_asset_keys()} == {settings.namespace for settings in given}
    assert_named(given)


def publish(settings: Settings) -> None:
    with closing(ModelStore(settings.redis.models, namespace=settings.namespace)) as published:
        assert published.publish(*example(), 1)


def models(settings: Settings) -> tuple[int, set[str]]:
    """How many models lie in the container, and which are published in Redis."""
    with (
        closing(ModelStore(settings.redis.models, namespace=settings.namespace)) as published,
        closing(ModelBlobs(settings.azure, settings.namespace)) as blobs,
    ):
        return len({one.metadata.model_id for one in blobs.versions()}), set(published.model_ids())


def assert_named(given: tuple[Settings, Settings]) -> None:
    """Whatever they left in the services has one of their names in front."""
    blue, green = given
    names = (blue.namespace, green.namespace)
    with redis.Redis.from_url(blue.redis.url) as client:
        keys = {key.decode().partition(":")[0] for key in client.scan_iter()}
    assert keys == set(names)
    admin = broker.admin(blue.kafka.brokers)
    groups = {group.group_id for group in admin.list_consumer_groups().result(30).valid}
    assert {f"{name}.{blue.kafka.group}" for name in names} <= groups
    topics = set(admin.list_topics(timeout=30).topics)
    assert {f"{name}.{USER_EVENTS.topic_name}" for name in names} <= topics
    assert not {USER_EVENTS.topic_name, blue.kafka.group} & (topics | groups)
    service = BlobServiceClient.from_connection_string(blue.azure.connection_string)
    containers = {one.name for one in service.list_containers()}
    assert f"{blue.namespace}-{blue.azure.container}" in containers
    assert blue.azure.container not in containers
