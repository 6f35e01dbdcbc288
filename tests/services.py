"""Real services for tests, on free ports and in temporary directories."""

import os
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from confluent_kafka.cimpl import NewTopic

from featurestore.models.blobs import ModelBlobs
from featurestore.settings import AzureSettings
from featurestore_cli.stack.azurite import AzuriteServer
from featurestore_cli.stack.kafka import KafkaBroker, admin, own_hosts
from featurestore_cli.stack.ports import Ports
from featurestore_cli.stack.processes import Child, start
from featurestore_cli.stack.redis import RedisServer
from featurestore_cli.stack.service import Program

ENV = dict(os.environ)  # noqa: TID251  # the entry point of the tests
AZURITE_KEY = "dGVzdHMgb2YgdGhlIGZlYXR1cmUgc3RvcmUsIG5vIHNlY3JldA=="


@dataclass(frozen=True)
class Kafka:
    brokers: str
    child: Child


@dataclass(frozen=True)
class Redis:
    url: str
    child: Child


@dataclass(frozen=True)
class Azurite:
    connection_string: str
    child: Child

    @property
    def settings(self) -> AzureSettings:
        return AzureSettings(connection_string=self.connection_string)

    def blobs(self, container: str) -> ModelBlobs:
        """The models in a container of it."""
        return ModelBlobs(replace(self.settings, container=container))


@contextmanager
def running(program: Program, logs: Path) -> Generator[Child]:
    """Start a program, wait until it answers, stop it at the end."""
    child = start(program, logs, ENV)
    try:
        child.wait_ready()
        yield child
    finally:
        child.stop()


@contextmanager
def kafka_broker(home: Path) -> Generator[Kafka]:
    """A broker in `home`; a second one on the same directory finds the topics of the first."""
    ports = Ports()
    broker = KafkaBroker(
        home=home / "kafka",
        ports={host: ports.take() for host in own_hosts()},
        controller_port=ports.take(),
    )
    with running(broker.program(ENV, print), home / "logs") as child:
        # One address: what stands first is what clients are given in production too.
        yield Kafka(brokers=broker.brokers.split(",")[0], child=child)


@contextmanager
def redis_process(home: Path, *, port: int = 0, env: Mapping[str, str] = ENV) -> Generator[Redis]:
    """A Redis in `home`, with a password; REDIS_SERVER in `env` names another program."""
    server = RedisServer(home=home / "redis", port=port or Ports().take(), password="for-tests")
    with running(server.program(env), home / "logs") as child:
        yield Redis(url=server.url, child=child)


@contextmanager
def azurite_process(home: Path) -> Generator[Azurite]:
    """An Azurite in `home`."""
    server = AzuriteServer(home=home / "azurite", port=Ports().take(), key=AZURITE_KEY)
    with running(server.program(ENV, home / "logs", print), home / "logs") as child:
        yield Azurite(connection_string=server.connection_string, child=child)


def eventually(holds: Callable[[], bool], within_s: float = 15.0) -> None:
    """Wait until it holds, looking again and again; fail when it does not in time."""
    deadline, never = time.monotonic() + within_s, threading.Event()
    while not holds():
        assert time.monotonic() < deadline, f"not so within {within_s:g} s"
        never.wait(0.02)


def create_topic(brokers: str, name: str) -> None:
    """Create a topic with one partition."""
    client = admin(brokers)  # kept until the answer is there
    client.create_topics([NewTopic(name, 1, 1)])[name].result(10)
