"""A real broker: on both loopback addresses, found where it is, the same after a restart."""

from pathlib import Path

import psutil
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
from featurestore_cli.stack.processes import start
from tests.services import ENV, Kafka, create_topic, eventually, kafka_broker, running

pytestmark = pytest.mark.services


def test_it_listens_on_every_loopback_address(tmp_path: Path) -> None:
    ports = Ports()
    broker = KafkaBroker(
        home=tmp_path, ports={host: ports.take() for host in own_hosts()}, controller_port=ports.take()
    )
    with running(broker.program(ENV, print), tmp_path):
        assert all(answers(address, timeout_s=5.0) for address in broker.brokers.split(","))


def test_topics_survive_a_restart_and_a_change_of_ports(tmp_path: Path) -> None:
    with kafka_broker(tmp_path) as first:
        create_topic(first.brokers, "kept")
    with kafka_broker(tmp_path) as second:
        assert second.brokers != first.brokers
        assert topics(second.brokers, 5.0) == {"kept"}


def test_it_comes_back_after_kill_9(tmp_path: Path) -> None:
    ports = Ports()
    broker = KafkaBroker(home=tmp_path, ports={"127.0.0.1": ports.take()}, controller_port=ports.take())
    program = broker.program(ENV, print)
    child = start(program, tmp_path, ENV)
    child.wait_ready()
    create_topic(broker.brokers, "kept")
    [java] = psutil.Process(child.pid).children()
    java.kill()
    eventually(lambda: child.exit_code() is not None)
    with running(program, tmp_path):
        assert topics(broker.brokers, 5.0) == {"kept"}


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
