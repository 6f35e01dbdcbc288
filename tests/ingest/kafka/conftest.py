"""A topic of its own for each test, and a daemon that the test steps itself."""

import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from prometheus_client import CollectorRegistry

import featurestore as fs
from featurestore.errors import TransientError
from featurestore.landing.batch import Batch
from featurestore.landing.storage import open_storage
from featurestore.landing.zone import LandingZone
from featurestore.process.health import Health
from featurestore.settings import IngestSettings, KafkaSettings, Settings
from ingest.kafka.backlog import Standing
from ingest.kafka.daemon import KafkaDaemon
from tests.ingest.power import But, Durable, Witness
from tests.services import Kafka

USER = fs.Entity("user", key="user_id")


def project(*topics: str) -> fs.Project:
    """One source per topic."""
    sources = [
        fs.KafkaSource(
            f"source_{i}", timestamp="at", timestamp_format="us", schema={"user_id": int, "n": int}, topic=topic
        )
        for i, topic in enumerate(topics)
    ]
    return fs.Project(
        tuple(fs.FeatureView(f"view_{i}", USER, one, [fs.Feature(f"n_{i}", int, "n")]) for i, one in enumerate(sources))
    )


def record(user: int, n: int) -> bytes:
    return f'{{"user_id":{user},"n":{n},"at":{time.time_ns() // 1000}}}'.encode()


@dataclass(frozen=True)
class Topic:
    """A topic of the session's broker."""

    name: str
    brokers: str
    admin: AdminClient

    def create(self, partitions: int = 1, **config: str) -> None:
        new = NewTopic(self.name, partitions, 1, config={key.replace("_", "."): value for key, value in config.items()})
        self.admin.create_topics([new])[self.name].result(15)

    def delete(self) -> None:
        self.admin.delete_topics([self.name])[self.name].result(15)

    def send(self, records: Iterable[tuple[bytes | None, bytes | None]], **config: Any) -> None:
        """Send (key, value) pairs, and wait for their acknowledgement."""
        producer = Producer({"bootstrap.servers": self.brokers, "enable.idempotence": True, **config})
        for key, value in records:
            producer.produce(self.name, value, key)
        assert producer.flush(30) == 0

    def send_numbers(self, count: int, start: int = 0, users: int = 7) -> None:
        """Records whose `n` counts on; the user follows from it."""
        self.send((str(n % users).encode(), record(n % users, n)) for n in range(start, start + count))


@pytest.fixture
def topic(kafka: Kafka) -> Topic:
    """A topic that does not exist yet."""
    return Topic(f"t-{uuid.uuid4().hex[:12]}", kafka.brokers, AdminClient({"bootstrap.servers": kafka.brokers}))


@pytest.fixture
def settings(kafka: Kafka, tmp_path: Path) -> Settings:
    (tmp_path / "data").mkdir()
    return Settings(
        data_dir=tmp_path / "data",
        kafka=KafkaSettings(brokers=kafka.brokers, group=f"g-{uuid.uuid4().hex[:12]}"),
        ingest=IngestSettings(batch_age_s=0.1, disk_reserve_bytes=0),
    )


def with_ingest(settings: Settings, **changes: Any) -> Settings:
    return replace(settings, ingest=replace(settings.ingest, **changes))


def with_kafka(settings: Settings, **changes: Any) -> Settings:
    return replace(settings, kafka=replace(settings.kafka, **changes))


class Stepped:
    """A daemon, and what it has to say."""

    def __init__(self, settings: Settings, project: fs.Project, standing: Callable[[], Standing] = Standing) -> None:
        self.health, self.registry = Health(), CollectorRegistry()
        self.service = KafkaDaemon(settings, project, health=self.health, registry=self.registry, standing=standing)
        self.errors: list[str] = []
        self.witness: Witness | None = None  # of what it acknowledges

    def step(self) -> None:
        try:
            self.service.step()
        except TransientError as error:
            self.health.not_ready(str(error))
            self.errors.append(str(error))

    def until(self, holds: Callable[[], bool], within_s: float = 30.0) -> None:
        deadline = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < deadline, (self.health.snapshot(), self.errors[-3:])
            self.step()

    def until_ready(self) -> None:
        self.until(lambda: self.health.state == "ready")

    def counted(self, outcome: str, source: str = "source_0") -> float:
        labels = {"source": source, "outcome": outcome}
        return self.registry.get_sample_value("fs_ingest_records_total", labels) or 0.0


@contextmanager
def daemon(
    settings: Settings, project: fs.Project, standing: Callable[[], Standing] = Standing, *, but: But = ""
) -> Generator[Stepped]:
    """A daemon, watched at each of its acknowledgements (P2); `but`, see `Durable`, makes it break its promise."""
    stepped = Stepped(settings, project, standing)
    with pytest.MonkeyPatch.context() as patch:
        durable = Durable(patch, but)
        stepped.service.start()
        if not settings.azure.landing_container:
            stepped.witness = Witness(stepped.service, durable, settings.landing_dir)
        try:
            yield stepped
        finally:
            stepped.service.stop()


@contextmanager
def in_background(*others: Stepped) -> Generator[None]:
    """Step other daemons meanwhile, each in a thread of its own."""
    stopping = threading.Event()

    def run(stepped: Stepped) -> None:
        while not stopping.is_set():
            stepped.step()

    threads = [threading.Thread(target=run, args=(one,)) for one in others]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join(30)


def zone_of(settings: Settings) -> LandingZone:
    """The landing zone of a reader who comes now."""
    return LandingZone(open_storage(settings))


def landed(settings: Settings, source: str = "source_0") -> list[Batch]:
    return zone_of(settings).batches(source)


def rows_in(settings: Settings, source: str = "source_0") -> int:
    return sum(batch.rows for batch in landed(settings, source))


def numbers(settings: Settings, source: str = "source_0") -> list[int]:
    """The landed `n`, by partition and offset."""
    zone = zone_of(settings)
    batches = sorted(zone.batches(source), key=lambda batch: (batch.chain, batch.start))
    return [n for batch in batches for n in zone.read(batch)["n"].to_pylist()]


def assert_kept(settings: Settings, source: str = "source_0") -> None:
    """P1: each chain begins at 0, follows on without holes, and accounts for each of its offsets once, with reasons;
    its times grow. P8: in a chain, a user's numbers do. P2 is watched by `daemon`, and by `zombies`.
    """
    zone, chains = zone_of(settings), dict[str, list[Batch]]()
    for batch in zone.batches(source):
        chains.setdefault(batch.chain, []).append(batch)
    for batches in chains.values():
        batches.sort(key=lambda batch: batch.start)
        assert [batch.start for batch in batches] == [0, *(batch.end for batch in batches[:-1])]
        assert all(b.rows + b.dead_rows + b.absent_rows == b.end - b.start for b in batches)
        times = [batch.created_at for batch in batches]
        assert times == sorted(set(times))
        by_user: dict[int, list[int]] = {}
        for row in (row for batch in batches for row in zone.read(batch).to_pylist()):
            by_user.setdefault(row["user_id"], []).append(row["n"])
        assert all(numbers == sorted(numbers) for numbers in by_user.values())
    assert all(letter.reason for _, letter in zone.dead_letters(source))
