"""The partitions of this process, from being given by the group to being taken away."""

import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaException, TopicPartition

from featurestore.definitions.source import Source
from featurestore.errors import CorruptFileError, NoSpaceError, TransientError
from featurestore.landing.batch import Batch, utc_now
from featurestore.landing.columns import clock_is_wrong
from featurestore.landing.publish import Fenced
from featurestore.landing.schema import landed_schema
from featurestore.landing.zone import LandingZone, kafka_chain
from featurestore.settings import Settings
from ingest.kafka.buffer import Buffer
from ingest.kafka.topics import TIMEOUT_S, Generation, Topics
from ingest.metrics import IngestMetrics

log = logging.getLogger(__name__)

_CLOCK = timedelta(minutes=5)  # further ahead than this a landed batch disagrees with the own clock


@dataclass(frozen=True, slots=True)
class Start:
    """Read from `offset`; from `gap_from` to it there is nothing to read, which lands as a gap."""

    offset: int
    gap_from: int


@dataclass(frozen=True, slots=True)
class Behind:
    """Kafka ends before the landed tail: it lost records, or is not the Kafka that was read before."""

    high: int
    tail: int


def plan_start(tail: int | None, low: int, high: int, *, from_end: bool) -> Start | Behind:
    """Where to go on after `tail` (None: nothing is landed) in a partition that holds the offsets [low, high).

    A chain begins at offset 0 whatever Kafka still has, so that competing writers always meet at the same name.
    """
    if tail is None:
        return Start(high if from_end else low, gap_from=0)
    if high < tail:
        return Behind(high, tail)
    return Start(max(tail, low), gap_from=tail)


@dataclass(slots=True, eq=False)
class Partition:
    """A partition that the group gave to this process. It is read while it has a buffer."""

    topic: str
    number: int
    source: Source
    generation: Generation | None = None
    chain: str = ""
    previous: Batch | None = None
    buffer: Buffer | None = None
    paused: bool = False
    alert: str = ""  # why it is not read, until somebody acts
    held: bool = False  # by that alert, until it is looked at again

    def __str__(self) -> str:
        return f"{self.topic}/{self.number}"

    def at(self, offset: int = OFFSET_INVALID) -> TopicPartition:
        return TopicPartition(self.topic, self.number, offset)


class Assignment:
    """Where partitions are read from, and how they are landed.

    What the group gives is only noted; `place` begins to read it later, from the loop, for it asks disk and Kafka.
    Whatever happens to a partition (another writer was first, retention was faster, its topic was recreated), it is
    let go and placed again at the landed tail. Offsets are given with the assignment: `seek` loses records.
    """

    def __init__(
        self,
        settings: Settings,
        consumer: Consumer,
        topics: Topics,
        zone: LandingZone,
        metrics: IngestMetrics,
        source_of: Callable[[str], Source],
    ) -> None:
        self._settings, self._consumer, self._topics = settings, consumer, topics
        self._zone, self._metrics, self._source_of = zone, metrics, source_of
        self._partitions: dict[tuple[str, int], Partition] = {}
        self.joined = False  # the group has answered

    def __iter__(self) -> Iterator[Partition]:
        return iter(self._partitions.values())

    @property
    def settled(self) -> bool:
        """Whether the group has answered, and all that can be read is read."""
        return self.joined and all(one.buffer is not None or one.alert for one in self)

    def reading(self) -> list[tuple[Partition, Buffer]]:
        return [(one, one.buffer) for one in self if one.buffer is not None]

    def get(self, topic: str | None, number: int | None) -> Partition | None:
        return self._partitions.get((topic or "", -1 if number is None else number))

    # called by the client, inside of consume() and close()

    def on_assign(self, _: Consumer, given: list[TopicPartition]) -> None:
        self.joined = True
        for one in given:
            partition = Partition(one.topic, one.partition, self._source_of(one.topic))
            self._partitions[one.topic, one.partition] = partition
        self._consumer.incremental_assign([])  # `place` does, with offsets

    def on_revoke(self, _: Consumer, taken: list[TopicPartition]) -> None:
        for partition in self._known(taken):
            self.land_or_drop([partition])
            self._remove(partition)
        self._consumer.incremental_unassign([])

    def on_lost(self, _: Consumer, taken: list[TopicPartition]) -> None:
        """Another process may have them already: nothing more is landed."""
        for partition in self._known(taken):
            self._remove(partition)
        self._consumer.incremental_unassign([])

    def _known(self, given: Iterable[TopicPartition]) -> list[Partition]:
        return [known for one in given if (known := self.get(one.topic, one.partition))]

    def _remove(self, partition: Partition) -> None:
        self.let_go(partition)
        del self._partitions[partition.topic, partition.number]

    # placing

    def place(self) -> None:
        """Begin to read what is not read yet and no alert holds.

        Raises:
            TransientError: Kafka does not answer, or the disk is full.
        """
        waiting = [one for one in self if one.buffer is None and not one.held]
        generations = self._topics.generations({one.topic for one in waiting})
        for one in waiting:
            if generation := generations.get(one.topic):  # else the topic is gone, and the group takes it away
                one.generation = generation
                one.chain = kafka_chain(one.source.name, generation.cluster_id, generation.topic_id, one.number)
                self._place(one)

    def try_again(self) -> None:
        """Look again at what was held by an alert: somebody may have acted."""
        for one in self:
            one.held = False

    def _hold(self, one: Partition, alert: str) -> None:
        if one.alert != alert:
            log.error("%s: %s; it is not read any more", one, alert)
        one.alert, one.held = alert, True

    def _place(self, one: Partition) -> None:
        try:
            one.previous = self._zone.tail(one.chain)
        except CorruptFileError as error:
            self._hold(one, f"{error}; restore it from a backup")
            return
        if swept := self._zone.sweep(one.chain):
            log.info("%s: removed %d files of writers that were interrupted or too late", one, swept)
        tail = one.previous.end if one.previous else None
        try:
            low, high = self._consumer.get_watermark_offsets(one.at(), timeout=TIMEOUT_S)
        except KafkaException as error:
            raise self._topics.unavailable(error) from error
        start = plan_start(tail, low, high, from_end=self._settings.kafka.start_at == "latest")
        if isinstance(start, Behind):
            self._hold(one, f"{one} ends at {high}, but {tail} records of it are landed; is this the right Kafka?")
            return
        one.alert = ""
        schema = landed_schema(one.source)
        if start.offset > start.gap_from:
            log.warning("%s: there is nothing to read from %d to %d", one, start.gap_from, start.offset)
            gap = Buffer(start.gap_from, schema)
            gap.end = start.offset
            if not self._publish(one, gap):
                return
        one.buffer = Buffer(start.offset, schema)
        self._consumer.incremental_assign([one.at(start.offset)])
        self._consumer.resume([one.at()])  # the client remembers that one was paused, also after it was let go
        log.info("reading %s from %d", one, start.offset)

    def let_go(self, partition: Partition) -> None:
        """Stop reading, and forget what is not landed."""
        if partition.buffer is not None:
            partition.buffer, partition.paused = None, False
            self._consumer.incremental_unassign([partition.at()])

    def let_go_recreated(self, generations: Mapping[str, Generation]) -> None:
        """Let go of partitions whose topic is another one by now: their records may be from either."""
        for one, buffer in self.reading():
            if (now := generations.get(one.topic)) and now != one.generation:
                log.warning("%s was deleted and created again; %d records were not landed", one, buffer.records)
                self.let_go(one)

    # landing

    def land(self, partitions: Iterable[Partition]) -> None:
        """Land what these partitions hold.

        Raises:
            TransientError: some is not landed; it is held still, or will be read again.
        """
        held = [one for one in partitions if one.buffer is not None and not one.buffer.empty]
        # Asked after the last record was taken: if a topic is the same one now, it was when they were read.
        self.let_go_recreated(self._topics.generations({one.topic for one in held}))
        for one in held:
            if one.buffer is not None:
                self._land(one, one.buffer)

    def land_or_drop(self, partitions: Iterable[Partition]) -> None:
        """Land what these partitions hold if it can be done now; else it will be read again, here or elsewhere."""
        try:
            self.land(partitions)
        except TransientError as error:
            log.warning("not landed, to be read again: %s", error)

    def _land(self, one: Partition, buffer: Buffer) -> None:
        if clock_is_wrong(buffer.future, buffer.records):
            self.let_go(one)  # what it refused, it refused by a wrong clock
            raise TransientError(f"{one}: most records are over 5 min in the future; is this machine's clock right?")
        if not self._publish(one, buffer):
            self._metrics.fenced.labels(one.source.name).inc()
            self.let_go(one)
            return
        one.buffer = Buffer(buffer.end, buffer.schema)
        try:
            self._consumer.commit(offsets=[one.at(buffer.end)], asynchronous=True)
        except KafkaException as error:
            log.info("%s: not committed, which only displays of lag notice: %s", one, error)

    def _publish(self, one: Partition, buffer: Buffer) -> bool:
        """Whether it was landed; if not, another writer was first."""
        self._check_clock(one)
        self._check_space()
        began_s = time.monotonic()
        result = self._zone.publish(
            one.chain,
            buffer.table(),
            source=one.source.name,
            start=buffer.start,
            end=buffer.end,
            schema_version=one.source.schema_version,
            previous=one.previous,
            dead=buffer.dead,
            absent_rows=buffer.absent_rows,
        )
        if isinstance(result, Fenced):
            log.warning("%s: another writer has landed from %d to %d", one, buffer.start, result.winner.end)
            return False
        one.previous = result.batch
        self._metrics.landed([result.batch], took_s=time.monotonic() - began_s)
        landed = result.batch
        log.info("landed %d rows, %d dead", landed.rows, landed.dead_rows, extra={"batch_id": landed.batch_id})
        return True

    def _check_clock(self, one: Partition) -> None:
        last = one.previous.created_at if one.previous else None
        if last is not None and last > utc_now() + _CLOCK:
            raise TransientError(f"{one}: its last batch landed at {last}; is this machine's clock right?")

    def _check_space(self) -> None:
        free_bytes = shutil.disk_usage(self._settings.data_dir).free
        if free_bytes < self._settings.ingest.disk_reserve_bytes:
            raise NoSpaceError(
                f"{free_bytes >> 20} MiB are left on the disk of {self._settings.data_dir}, less than the reserve of "
                f"{self._settings.ingest.disk_reserve_bytes >> 20} MiB (FEATURESTORE_INGEST_DISK_RESERVE_BYTES)"
            )
