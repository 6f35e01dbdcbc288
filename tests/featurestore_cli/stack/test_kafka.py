"""A real broker: on both loopback addresses, found where it is, the same after a restart."""

from pathlib import Path

import pytest

from featurestore.errors import TerminalError
from featurestore_cli.stack.kafka import (
    MARKER,
    KafkaBroker,
    answers,
    kafka_classpath,
    marked,
    own_hosts,
    topics,
)
from featurestore_cli.stack.ports import Ports
from tests.services import ENV, Kafka, create_topic, kafka_broker, running

pytestmark = pytest.mark.services


def test_it_listens_on_every_loopback_address_and_topics_survive_a_restart_and_a_change_of_ports(
    tmp_path: Path,
) -> None:
    """What kill -9 leaves comes back too: tests/faults/test_broker.py."""
    ports = Ports()
    first = KafkaBroker(
        home=tmp_path / "kafka", ports={host: ports.take() for host in own_hosts()}, controller_port=ports.take()
    )
    with running(first.program(ENV, print), tmp_path):
        assert all(answers(address, timeout_s=5.0) for address in first.brokers.split(","))
        create_topic(first.brokers, "kept")
    with kafka_broker(tmp_path) as second:
        assert second.brokers not in first.brokers.split(",")
        assert topics(second.brokers, 5.0) == {"kept"}


def test_only_the_marker_of_the_same_platform_counts(kafka: Kafka) -> None:
    create_topic(kafka.brokers, f"{MARKER}abc")
    assert marked(kafka.brokers, "abc")
    assert not marked(kafka.brokers, "abcd")
    assert not marked(f"127.0.0.1:{Ports().take()}", "abc")


def test_kafka_home_goes_first(tmp_path: Path) -> None:
    (tmp_path / "libs").mkdir()
    with pytest.raises(TerminalError, match="holds no Apache Kafka 4"):
        kafka_classpath({"KAFKA_HOME": str(tmp_path)}, print)
    (tmp_path / "libs" / "kafka-server-4.3.1.jar").touch()
    assert kafka_classpath({"KAFKA_HOME": str(tmp_path)}, print) == f"{tmp_path}/libs/*"
