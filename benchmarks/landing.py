"""The Kafka daemon, from consume to published batch, against two lower bounds on the same broker and topic.

python -m benchmarks.landing --events 800000

A bare loop consumes and drops (goal: at least a third of its events per second); a plain script decodes, writes Parquet
and fsyncs without any of the checks (goal: at most 1.5 times its CPU). Each run is a process of its own.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from prometheus_client import CollectorRegistry

import featurestore as fs
from featurestore.process.health import Health
from featurestore.settings import KafkaSettings, Settings
from ingest.kafka.daemon import KafkaDaemon, tune_collector
from tests.services import kafka_broker

SHARE, CPU, MEMORY_MB = 1 / 3, 1.5, 300  # the goals
FLUSH_ROWS = 100_000
USER = fs.Entity("user", key="user_id")


@dataclass(frozen=True)
class Run:
    seconds: float
    cpu_seconds: float
    peak_mb: float


def fill(brokers: str, topic: str, events: int) -> None:
    admin = AdminClient({"bootstrap.servers": brokers})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(15)
    producer = Producer({"bootstrap.servers": brokers, "enable.idempotence": True, "linger.ms": 50})
    for number in range(events):
        user, now = number % 5_000, datetime.now(UTC).isoformat().replace("+00:00", "Z")
        value = f'{{"user_id":{user},"action":"{("view", "click")[number % 2]}","amount":{number / 7},"at":"{now}"}}'
        while True:
            try:
                producer.produce(topic, value.encode(), str(user).encode())
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0


def consumer_of(brokers: str, topic: str) -> Consumer:
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": uuid.uuid4().hex, "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    return consumer


def bare(brokers: str, topic: str, events: int, _: Path) -> Callable[[], None]:
    def run() -> None:
        consumer, taken = consumer_of(brokers, topic), 0
        while taken < events:
            taken += len(consumer.consume(500, 1.0))

    return run


class Event(msgspec.Struct, gc=False):
    user_id: int
    action: str
    amount: float
    at: datetime


def plain(brokers: str, topic: str, events: int, directory: Path) -> Callable[[], None]:
    decode = msgspec.json.Decoder(Event).decode

    def write(events: list[Event], number: int) -> None:
        columns = {name: [getattr(one, name) for one in events] for name in ("user_id", "action", "amount", "at")}
        path = directory / f"{number}.parquet"
        pq.write_table(pa.table(columns), path, compression="zstd", compression_level=1)
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)

    def run() -> None:
        consumer, taken, held = consumer_of(brokers, topic), 0, list[Event]()
        while taken < events:
            messages = consumer.consume(500, 1.0)
            taken += len(messages)
            held += [decode(message.value() or b"") for message in messages]
            if len(held) >= FLUSH_ROWS or taken == events:
                write(held, taken)
                held = []

    return run


def daemon(brokers: str, topic: str, events: int, directory: Path) -> Callable[[], None]:
    """Started and in its group; reading begins with the clock."""
    source = fs.KafkaSource(
        "events", timestamp="at", schema={"user_id": int, "action": str, "amount": float}, topic=topic
    )
    project = fs.Project((fs.FeatureView("view", USER, source, [fs.Feature("last_action", str, "action")]),))
    settings = Settings(data_dir=directory, kafka=KafkaSettings(brokers=brokers, group=uuid.uuid4().hex))
    registry = CollectorRegistry()
    service = KafkaDaemon(settings, project, health=Health(), registry=registry)
    service.start()
    assignment = service.assignment
    while not assignment.joined:
        service.step()

    def landed() -> float:
        labels = {"source": "events", "outcome": "landed"}
        return registry.get_sample_value("fs_ingest_records_total", labels) or 0.0

    def run() -> None:
        while landed() + sum(buffer.records for _, buffer in assignment.reading()) < events:
            service.step()
        service.drain()
        assert landed() == events

    return run


WAYS = {"the daemon": daemon, "bare consume(500)": bare, "plain script": plain}


def measure(way: str, brokers: str, topic: str, events: int) -> Run:
    """In a process of its own."""
    tune_collector()
    with tempfile.TemporaryDirectory() as directory:
        run = WAYS[way](brokers, topic, events, Path(directory))
        start, cpu_start = time.perf_counter(), time.process_time()
        run()
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return Run(seconds, cpu_seconds, int(line.split()[1]) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=800_000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    found: dict[str, list[Run]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as home, kafka_broker(Path(home)) as kafka:
        fill(kafka.brokers, "events", args.events)
        for _ in range(args.repeats):
            for way in WAYS:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    found[way].append(pool.apply(measure, (way, kafka.brokers, "events", args.events)))
    print(f"{args.events} events, {args.repeats} runs each, medians")
    seconds = {way: statistics.median(run.seconds for run in runs) for way, runs in found.items()}
    cpu = {way: statistics.median(run.cpu_seconds for run in runs) for way, runs in found.items()}
    for way, runs in found.items():
        peak_mb = max(run.peak_mb for run in runs)
        print(
            f"  {way:20} {args.events / seconds[way]:9,.0f} events/s  {1e6 * cpu[way] / args.events:6.2f} µs CPU"
            f"  {peak_mb:5.0f} MB"
        )
    print(f"  events/s: {seconds['bare consume(500)'] / seconds['the daemon']:.2f} of bare consume (goal {SHARE:.2f})")
    print(f"  CPU: {cpu['the daemon'] / cpu['plain script']:.2f} times the plain script (goal {CPU})")
    print(f"  memory: {max(run.peak_mb for run in found['the daemon']):.0f} MB (goal {MEMORY_MB})")


if __name__ == "__main__":
    main()
