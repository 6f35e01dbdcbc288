"""The generator with real services: its ledger is what arrives, and it waits for what is away."""

import socket
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from featurestore.landing.zone import LandingZone
from featurestore.process.health import Health
from featurestore.settings import GeneratorSettings, Settings
from featurestore_dagster.features.project import PROJECT
from ingest.generator.daemon import GeneratorDaemon
from ingest.generator.ledger import read_ledger
from ingest.grpc.daemon import GrpcDaemon
from tests.ingest.kafka.conftest import Stepped, Topic, daemon, rows_in
from tests.ingest.kafka.conftest import settings as settings
from tests.ingest.kafka.conftest import topic as topic
from tests.services import eventually

pytestmark = pytest.mark.services

GENERATOR = GeneratorSettings(
    events_per_s=0, max_events=5_000, max_files=4, file_every_s=0.1, file_rows=50, users=40, bad_share=0.02
)


@pytest.fixture
def generating(settings: Settings, topic: Topic) -> tuple[Settings, Topic]:
    """Settings with a namespace, so that the topic is this test's own, and a free address for uploads."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    namespace = topic.name
    found = replace(settings, namespace=namespace, grpc=replace(settings.grpc, address=address), generator=GENERATOR)
    return found, replace(topic, name=found.name("user_events", "."))


@contextmanager
def uploads(settings: Settings) -> Generator[None]:
    service = GrpcDaemon(settings, PROJECT, health=Health(), registry=CollectorRegistry())
    service.start()
    try:
        yield
    finally:
        service.stop()


@contextmanager
def generator(settings: Settings) -> Generator[tuple[GeneratorDaemon, Health, list[bool]]]:
    health, ended = Health(), list[bool]()
    service = GeneratorDaemon(settings, health=health, registry=CollectorRegistry())
    service.done = lambda: ended.append(True)
    service.start()
    try:
        yield service, health, ended
    finally:
        service.stop()


def test_the_ledger_is_what_arrives(generating: tuple[Settings, Topic]) -> None:
    settings, topic = generating
    topic.create(partitions=2)
    with uploads(settings), daemon(settings, PROJECT) as consuming:
        with generator(settings) as (service, _, ended):
            eventually(lambda: bool(ended) or not service.step(), within_s=60)
        ledger = read_ledger(settings.data_dir)
        assert sum((sent.good + sent.bad) for sent in ledger.values()) == 5_000 + 40 * 6 + 3 * 40
        assert all(sent.in_doubt == 0 and sent.bad > 0 for sent in ledger.values())
        consuming.until(lambda: rows_in(settings, "user_events") >= ledger["user_events"].good)

    zone = LandingZone(settings.landing_dir)
    for source, sent in ledger.items():
        batches = zone.batches(source)
        users = [user for batch in batches for user in zone.read(batch)["user_id"].to_pylist()]
        assert len(users) == sent.good
        assert {str(user): users.count(user) for user in set(users)} == sent.good_of_user
        assert sum(batch.dead_rows for batch in batches) == sent.bad
    assert (settings.data_dir / "generator" / "labels.parquet").exists()


def test_it_waits_for_what_is_away(generating: tuple[Settings, Topic]) -> None:
    settings, topic = generating
    with generator(settings) as (service, health, ended):
        eventually(lambda: service.step() and "waiting for the topic" in health.note)
        assert health.state == "not ready"

        topic.create()
        with uploads(settings):
            eventually(lambda: bool(ended) or not service.step(), within_s=60)
    assert read_ledger(settings.data_dir)["user_events"].in_doubt == 0


def test_a_generator_that_is_stopped_has_sent_what_its_ledger_says(
    generating: tuple[Settings, Topic], tmp_path: Path
) -> None:
    settings, topic = generating
    topic.create()
    endless = replace(settings, generator=replace(GENERATOR, max_events=0, max_files=0, events_per_s=2_000))
    with uploads(endless):
        with generator(endless) as (service, _, _):
            eventually(lambda: service.step() and "user_events" in read_ledger(tmp_path / "data"))
        sent = read_ledger(endless.data_dir)["user_events"]
        consuming: Stepped
        with daemon(endless, PROJECT) as consuming:
            consuming.until(lambda: rows_in(endless, "user_events") >= sent.good)
    assert rows_in(endless, "user_events") == sent.good
    assert sent.in_doubt == 0
