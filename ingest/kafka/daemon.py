"""Kafka → landing zone: every record of the declared topics exactly once, in its partition's order.

What is landed is the only position that counts: reading begins at the landed tail, a batch is published under a name
that only one writer can create, and offsets are committed afterwards, for displays of lag.
"""

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka.admin import AdminClient
from prometheus_client import CollectorRegistry, ProcessCollector

from featurestore.database.client import QueueDatabase
from featurestore.definitions.project import Project, load_project
from featurestore.definitions.source import KafkaSource, Source
from featurestore.errors import DefinitionError, SettingsError, TerminalError, TransientError
from featurestore.landing.batch import utc_now
from featurestore.landing.columns import Door
from featurestore.landing.zone import LandingZone
from featurestore.process.daemon import Daemon, run_until_signalled
from featurestore.process.health import Health
from featurestore.process.metrics import serve
from featurestore.settings import Settings
from ingest.kafka.assignment import Assignment, Partition
from ingest.kafka.backlog import Backlog, Standing
from ingest.kafka.buffer import Records
from ingest.kafka.topics import Topics
from ingest.metrics import IngestMetrics
from ingest.records import JsonDecoder

log = logging.getLogger(__name__)

_CHUNK_RECORDS = 4_000  # taken and decoded at once
_WAIT_S = 0.5  # for records
_SETTLE_S = 0.1  # for the group to give partitions
_LEAVE_S = 10.0  # for the client to leave the group
_DRAIN_S = 25.0  # for all of the end; what is not landed by then is read again
_LOOK_S = 5.0  # between looks at topics and lag
_MISSING_LOOK_S = 1.0  # while a topic is missing


class KafkaDaemon:
    """One consumer for all Kafka sources of the project; see `featurestore.process.daemon.Service`.

    A partition's buffer is bounded by `batch_bytes` and one chunk, all of them together by twice that. While the disk
    is full, Kafka does not answer or more than `pending_bytes` wait to be processed, all partitions are paused: Kafka
    is polled, and gives nothing.
    """

    _consumer: Consumer
    _topics: Topics
    assignment: Assignment  # once it is started

    def __init__(
        self,
        settings: Settings,
        project: Project,
        *,
        health: Health,
        registry: CollectorRegistry,
        standing: Callable[[], Standing] = Standing,
    ) -> None:
        self._settings, self._health, self._standing = settings, health, standing
        self._sources = _sources_by_topic(settings, project)
        self._metrics = IngestMetrics(registry, (source.name for source in self._sources.values()))
        self._decoders = {topic: JsonDecoder(Door.of(source, project)) for topic, source in self._sources.items()}
        self._subscribed: set[str] = set()
        self._missing = set(self._sources)  # topics that were not there at the last look
        self._started = False
        self._full = False  # more waits to be processed than is allowed
        self._look_at = 0.0

    def start(self) -> None:
        kafka = self._settings.kafka
        if kafka.start_at not in {"earliest", "latest"}:
            raise SettingsError(f"FEATURESTORE_KAFKA_START_AT: {kafka.start_at!r} is neither earliest nor latest")
        self._settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._consumer = Consumer(_consumer_config(self._settings), logger=log)
            admin = AdminClient({**kafka.client, "bootstrap.servers": kafka.brokers}, logger=log)
        except KafkaException as error:
            raise SettingsError(f"FEATURESTORE_KAFKA_…: {error.args[0].str()}") from error
        self._started = True
        self._topics = Topics(admin, kafka.brokers)
        self.assignment = Assignment(
            self._settings,
            self._consumer,
            self._topics,
            LandingZone.of(self._settings),
            self._metrics,
            self._sources.__getitem__,
        )

    def step(self) -> bool:
        trouble = self._keep_up()
        self._hold_back(trouble is not None)
        worked = self._take()
        if trouble is not None:
            raise trouble
        self._report()
        return worked

    def drain(self) -> None:
        self.assignment.land_or_drop(list(self.assignment))

    def stop(self) -> None:
        if not self._started:
            return
        # Whatever is of value has been landed, so the client gets its time to leave the group, and no more.
        leaving = threading.Thread(target=self._leave, name="leave", daemon=True)
        leaving.start()
        leaving.join(_LEAVE_S)
        if leaving.is_alive():
            log.warning("Kafka's client did not end within %g s; it is left alone", _LEAVE_S)

    def _leave(self) -> None:
        """In the middle of a join this takes the client 5 s: its farewell is held back behind the request to join."""
        for partition in self.assignment:
            self.assignment.let_go(partition)
        self._consumer.close()

    def _keep_up(self) -> TransientError | None:
        """Look at the topics, place partitions, land what is due. What comes in the way must not stop the polling."""
        try:
            if time.monotonic() >= self._look_at:
                self._look()
            self.assignment.place()
            self.assignment.land(self._due())
        except TransientError as error:
            return error
        return None

    def _due(self) -> list[Partition]:
        reading, bounds = self.assignment.reading(), self._settings.ingest
        all_due = sum(buffer.size_bytes for _, buffer in reading) >= 2 * bounds.batch_bytes
        now_s = time.monotonic()
        return [p for p, buffer in reading if not buffer.empty and (all_due or buffer.due_at(bounds) <= now_s)]

    def _look(self) -> None:
        """Subscribe to topics that have appeared, let go of recreated ones, and tell the lag."""
        generations = self._topics.generations(self._sources.keys())
        if new := generations.keys() - self._subscribed:
            self._subscribed |= new
            log.info("subscribing to %s", ", ".join(sorted(self._subscribed)))
            on = self.assignment
            self._consumer.subscribe(
                sorted(self._subscribed), on_assign=on.on_assign, on_revoke=on.on_revoke, on_lost=on.on_lost
            )
        self.assignment.let_go_recreated(generations)
        self.assignment.try_again()
        for one, buffer in self.assignment.reading():
            _, high = self._consumer.get_watermark_offsets(one.at(), cached=True)
            if high >= 0:  # else the client has not heard of it yet
                self._metrics.lag.labels(one.topic, str(one.number)).set(max(0, high - buffer.start))
        self._missing = self._sources.keys() - generations.keys()
        self._look_at = time.monotonic() + (_MISSING_LOOK_S if self._missing else _LOOK_S)

    def _hold_back(self, trouble: bool) -> None:
        """Pause all partitions, or none. Kafka's queue for a paused one is emptied and read again later."""
        bound = self._settings.ingest.pending_bytes
        self._full = self._standing().pending_bytes > (bound // 2 if self._full else bound)
        pause = trouble or self._full
        changed = [one for one, _ in self.assignment.reading() if one.paused != pause]
        if changed:
            (self._consumer.pause if pause else self._consumer.resume)([one.at() for one in changed])
            for one in changed:
                one.paused = pause

    def _take(self) -> bool:
        """Take records into the buffers; wait for some, but not past the time when a buffer is due."""
        began_s = time.monotonic()
        due = [b.due_at(self._settings.ingest) for p, b in self.assignment.reading() if not b.empty and not p.paused]
        longest_s = _WAIT_S if self.assignment.settled else _SETTLE_S
        messages = self._consumer.consume(_CHUNK_RECORDS, max(0.0, min([longest_s, *(at - began_s for at in due)])))
        if any(map(Message.error, messages)):
            for message in messages:
                if (error := message.error()) is not None:
                    self._heed(message, error)
            messages = [message for message in messages if message.error() is None]
        for topic, number, of_partition in _by_partition(messages):
            partition = self.assignment.get(topic, number)
            if partition is None or partition.buffer is None:
                continue  # taken away or let go since; read again by whoever has it
            records = Records.of(of_partition).since(partition.buffer.end)
            if records.offsets:
                decoded = self._decoders[topic].decode(records.values, records.offsets, utc_now(), records.keys)
                partition.buffer.add(records, decoded, began_s)
                self._metrics.unknown_members(partition.source.name, decoded.unknown_members)
        return bool(messages)

    def _heed(self, message: Message, error: KafkaError) -> None:
        """What Kafka says of a partition instead of giving its next record."""
        topic, number = message.topic(), message.partition()
        if error.fatal():
            raise TerminalError(f"Kafka: {error.str()}")
        log.warning("%s/%s: %s", topic, number, error.str())
        self._look_at = 0.0
        partition = self.assignment.get(topic, number)
        if partition is not None and error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001  # its public name
            self.assignment.land_or_drop([partition])  # retention has overtaken: this may exist nowhere else
            self.assignment.let_go(partition)

    def _report(self) -> None:
        partitions = list(self.assignment)
        alerts = dict.fromkeys([*(one.alert for one in partitions if one.alert), *self._standing().alarms])
        if alerts:
            self._health.not_ready("; ".join(alerts))
        elif self._missing:
            topics = ", ".join(sorted(self._missing))
            self._health.not_ready(f"waiting for the topic {topics}; `featurestore up` creates it")
        elif self._sources and not self.assignment.joined:
            self._health.not_ready(f"joining the group {self._settings.name(self._settings.kafka.group, '.')}")
        elif unplaced := [str(one) for one in partitions if one.buffer is None]:
            self._health.not_ready(f"not reading {', '.join(unplaced)} yet")
        elif self._full:
            self._health.ready("paused: too much is landed and not processed")
        else:
            self._health.ready(
                f"reading {len(partitions)} partition{'s'[: len(partitions) > 1]}" if partitions else "standing by"
            )


def _sources_by_topic(settings: Settings, project: Project) -> dict[str, Source]:
    found: dict[str, Source] = {}
    for source in project.sources:
        if isinstance(source, KafkaSource):
            other = found.setdefault(settings.name(source.topic_name, "."), source)
            if other is not source:
                raise DefinitionError(f"sources {other.name!r} and {source.name!r} read the same topic; make it one")
    return found


def _by_partition(messages: list[Message]) -> Iterator[tuple[str, int, list[Message]]]:
    topics, numbers = list(map(Message.topic, messages)), list(map(Message.partition, messages))
    if len(set(topics)) == len(set(numbers)) == 1:  # most often, and then there is nothing to sort out
        yield topics[0] or "", numbers[0] or 0, messages
        return
    places = list(zip(topics, numbers, strict=True))
    for place in dict.fromkeys(places):
        of_partition = [message for message, its in zip(messages, places, strict=True) if its == place]
        yield place[0] or "", place[1] or 0, of_partition


def _consumer_config(settings: Settings) -> dict[str, Any]:
    kafka = settings.kafka
    classic = kafka.group_protocol == "classic"  # the newer protocol leaves these two to the broker
    return {
        # What may be set otherwise (FEATURESTORE_KAFKA_CLIENT_…). The client's own defaults fetch in fits and starts of
        # a second, keep 64 MiB of records, and need 5 min to see that a topic was created again.
        "queued.min.messages": 20_000,
        "queued.max.messages.kbytes": 32_768,
        "fetch.queue.backoff.ms": 10,
        "topic.metadata.refresh.interval.ms": 10_000,
        **({"session.timeout.ms": 10_000} if classic else {}),  # how long a killed daemon keeps its partitions
        **kafka.client,
        "bootstrap.servers": kafka.brokers,
        "group.id": settings.name(kafka.group, "."),
        "group.protocol": kafka.group_protocol,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        **({"partition.assignment.strategy": "cooperative-sticky"} if classic else {}),
    }


def tune_collector() -> None:
    """Thousands of records at a time are no garbage: let the collector look far less often than by default."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def main(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; what was taken is landed before it ends."""
    registry, health, project = CollectorRegistry(), Health(), load_project(settings.project)
    ProcessCollector(registry=registry)
    backlog = Backlog(LandingZone.of(settings), project, lambda: QueueDatabase.of(settings))
    service = KafkaDaemon(settings, project, health=health, registry=registry, standing=lambda: backlog.standing)
    tune_collector()
    with serve(settings.metrics_port, registry, health), backlog.watching():
        return run_until_signalled(Daemon(service, health=health), drain_s=_DRAIN_S)
