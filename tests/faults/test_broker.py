"""A broker that is killed and comes back: P1, P2 and P8 hold."""

from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from confluent_kafka.admin import AdminClient

from featurestore.settings import IngestSettings, KafkaSettings, Settings
from featurestore_cli.stack.kafka import KafkaBroker, own_hosts
from featurestore_cli.stack.ports import Ports
from tests.ingest.kafka.conftest import Topic, assert_kept, daemon, numbers, project, rows_in
from tests.services import ENV, running

pytestmark = [pytest.mark.services, pytest.mark.slow]


def test_a_broker_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    ports = Ports()
    broker = KafkaBroker(
        home=tmp_path / "kafka", ports={host: ports.take() for host in own_hosts()}, controller_port=ports.take()
    )
    brokers = broker.brokers.split(",")[0]
    settings = Settings(
        data_dir=tmp_path / "data",
        kafka=KafkaSettings(brokers=brokers, group=uuid4().hex),
        ingest=IngestSettings(batch_age_s=0.1, disk_reserve_bytes=0),
    )
    with ExitStack() as stack:
        first = stack.enter_context(running(broker.program(ENV, print), tmp_path / "logs"))
        topic = Topic("records", brokers, AdminClient({"bootstrap.servers": brokers}))
        topic.create(partitions=2)
        service = stack.enter_context(daemon(settings, project(topic.name)))
        topic.send_numbers(100)
        service.until(lambda: rows_in(settings) == 100)
        topic.send_numbers(100, 100)
        for process in psutil.Process(first.pid).children(recursive=True):
            process.kill()
        service.until(lambda: any("Kafka does not answer" in error for error in service.errors), within_s=60)

        with running(broker.program(ENV, print), tmp_path / "logs"):
            service.until(lambda: rows_in(settings) == 200, within_s=60)
            topic.send_numbers(100, 200)
            service.until(lambda: rows_in(settings) == 300, within_s=60)
            service.until_ready()
    assert sorted(numbers(settings)) == list(range(300))
    assert_kept(settings)
