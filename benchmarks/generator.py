"""The generator's producers at full speed (`events_per_s=0`) beside the Kafka daemon that lands their events.

Goal: events are made and acknowledged at least as fast as they are landed. They run one after the other on the same
broker and topic; what lands is compared with what the producers say they sent.

    python -m benchmarks.generator [--events 300000] [--producers 2]
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from confluent_kafka.admin import AdminClient, NewTopic

from featurestore.landing.disk import DiskStorage
from featurestore.landing.zone import LandingZone
from featurestore.settings import GeneratorSettings, KafkaSettings, Settings
from ingest.generator.events import SOURCE, EventProducer
from ingest.generator.ledger import Sent
from tests.services import ENV, eventually, kafka_broker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", default=300_000, type=int)
    parser.add_argument("--producers", default=2, type=int)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, kafka_broker(Path(scratch)) as kafka:
        admin = AdminClient({"bootstrap.servers": kafka.brokers})
        admin.create_topics([NewTopic(SOURCE, 1, 1)])[SOURCE].result(15)
        settings = Settings(
            data_dir=Path(scratch) / "data",
            kafka=KafkaSettings(brokers=kafka.brokers),
            generator=GeneratorSettings(events_per_s=0, max_events=args.events, producers=args.producers),
        )
        made_s, sent = generate(settings)
        landed_s = land(settings)
        print(f"  generated  {args.events / made_s:8.0f} events/s")
        print(f"  landed     {args.events / landed_s:8.0f} events/s   generated / landed {landed_s / made_s:.2f}")
        print(f"  sent {sent.good} good, {sent.bad} bad, {sent.in_doubt} in doubt; landed {landed(settings)}")


def generate(settings: Settings) -> tuple[float, Sent]:
    """Seconds until the last event was acknowledged, and what was."""
    sent, stopping = Sent(), threading.Event()
    threads = range(settings.generator.producers)
    producers = [EventProducer(number, settings, stopping, lambda _, more: sent.add(more)) for number in threads]
    start_s = time.perf_counter()
    for producer in producers:
        producer.start()
    for producer in producers:
        producer.join()
    return time.perf_counter() - start_s, sent


def land(settings: Settings) -> float:
    """Seconds of the daemon for all events, measured from the first batch that landed."""
    env = ENV | {"FEATURESTORE_DATA_DIR": str(settings.data_dir), "FEATURESTORE_KAFKA_BROKERS": settings.kafka.brokers}
    with subprocess.Popen([sys.executable, "-m", "ingest", "kafka"], env=env, stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: sum(landed(settings)) > 0, within_s=120)
            first, start_s = sum(landed(settings)), time.perf_counter()
            eventually(lambda: sum(landed(settings)) == settings.generator.max_events, within_s=600)
            seconds = time.perf_counter() - start_s
        finally:
            process.terminate()
    return seconds * settings.generator.max_events / max(1, settings.generator.max_events - first)


def landed(settings: Settings) -> tuple[int, int]:
    """Rows and dead letters."""
    batches = LandingZone(DiskStorage(settings.landing_dir)).batches(SOURCE)
    return sum(batch.rows for batch in batches), sum(batch.dead_rows for batch in batches)


if __name__ == "__main__":
    main()
