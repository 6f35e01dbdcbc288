"""An Apache Kafka of the platform's own (KRaft, one node), and what can be asked of any."""

import base64
import logging
import socket
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from featurestore.errors import TerminalError
from featurestore_cli.stack.downloads import cache_dir, kafka_jars
from featurestore_cli.stack.ports import LOOPBACK
from featurestore_cli.stack.runtimes import find_java
from featurestore_cli.stack.service import NotStartedError, Program, Say, join_address, listens

log = logging.getLogger(__name__)

DEFAULT_PORT = 9092
MARKER = "featurestore-platform-"  # a topic of this name and the id of the data directory marks our own broker
# Small and quick to start. Serial collection and C1 alone: with the heap of a development broker they cost least.
JVM = ("-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError")
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners={listeners},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={listeners},CONTROLLER://127.0.0.1:{controller}
inter.broker.listener.name={inter_broker}
listener.security.protocol.map={protocols},CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
num.partitions=1
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
# The default of 128 MiB does not fit the heap, and ends the broker at start.
log.cleaner.dedupe.buffer.size=8388608
# With the defaults a broker started right after kill -9 waits for its own old registration to expire.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
# How often an idle controller writes that nothing happened: ten times less than by default.
metadata.max.idle.interval.ms=5000
"""
LOG4J = """\
Configuration:
  Appenders:
    Console:
      name: stdout
      PatternLayout: {pattern: "%d{yyyy-MM-dd'T'HH:mm:ss.SSS'Z'}{UTC} %-5p %c{1} %m%n"}
  Loggers:
    Root: {level: WARN, AppenderRef: {ref: stdout}}
    Logger:
      - {name: kafka.server.KafkaRaftServer, level: INFO}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaBroker:
    """One node that is broker and controller; its data and configuration in `home`.

    Each address has a listener with a port of its own: a listener advertises one address only, and a client that came
    over IPv6 must not be sent to IPv4.
    """

    home: Path
    ports: Mapping[str, int]  # address → port
    controller_port: int

    @property
    def brokers(self) -> str:
        return ",".join(join_address(host, port) for host, port in self.ports.items())

    def program(self, env: Mapping[str, str], say: Say) -> Program:
        """Fetch what is missing, write the configuration, format the storage once, and say how to start it.

        Raises:
            MissingProgramError, DownloadError, NotStartedError
        """
        java = find_java(env)
        classpath = kafka_classpath(env, say)
        data = self.home.absolute() / "data"
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        listeners = {f"LOOPBACK{n}": join_address(*at) for n, at in enumerate(self.ports.items(), start=1)}
        properties, log4j = data.with_name("server.properties"), data.with_name("log4j2.yaml")
        log4j.write_text(LOG4J)
        properties.write_text(
            PROPERTIES.format(
                controller=self.controller_port,
                listeners=",".join(f"{name}://{address}" for name, address in listeners.items()),
                protocols=",".join(f"{name}:PLAINTEXT" for name in listeners),
                inter_broker=next(iter(listeners)),
                data=data,
            )
        )
        run = (str(java), "-cp", classpath, *JVM, f"-Dlog4j2.configurationFile={log4j}")
        if not (data / "meta.properties").exists():
            _format(run, properties, data.with_name("format.log"))
        return Program(
            name="kafka",
            command=(*run, "kafka.Kafka", str(properties)),
            answers=lambda: answers(self.brokers),
            address=self.brokers,
            ports=(*self.ports.values(), self.controller_port),
            ready_within_s=90.0,
            stop_within_s=15.0,
        )


def kafka_classpath(env: Mapping[str, str], say: Say) -> str:
    """KAFKA_HOME's jars, else those of the lock."""
    if not (home := env.get("KAFKA_HOME")):
        return ":".join(str(jar) for jar in kafka_jars(cache_dir(env), say))
    if not [*Path(home, "libs").glob("kafka-server-4.*.jar")]:
        raise TerminalError(
            f"KAFKA_HOME={home} holds no Apache Kafka 4 (libs/kafka-server-4….jar); unset it, or correct it"
        )
    return f"{home}/libs/*"


def answers(brokers: str, timeout_s: float = 1.0) -> bool:
    """Whether a broker answers at the first of these addresses."""
    return topics(brokers, timeout_s) is not None


def marked(brokers: str, platform_id: str) -> bool:
    """Whether the Kafka there belongs to this platform; nothing is written."""
    return f"{MARKER}{platform_id}" in (topics(brokers) or ())


def topics(brokers: str, timeout_s: float = 1.0) -> set[str] | None:
    """The topics there, or None when no broker answers in time."""
    if not listens_at(brokers):  # cheaper than a client that tries
        return None
    try:
        return set(admin(brokers).list_topics(timeout=timeout_s).topics)
    except KafkaException:
        return None


def listens_at(brokers: str) -> bool:
    """Whether something listens at the first of these addresses."""
    host, _, port = brokers.split(",")[0].strip().rpartition(":")
    return listens(host.strip("[]"), int(port)) if port.isdigit() else False


def admin(brokers: str, client: Mapping[str, str] | None = None) -> AdminClient:
    return AdminClient({**(client or {}), "bootstrap.servers": brokers}, logger=log)


def own_hosts() -> tuple[str, ...]:
    """The loopback addresses that this machine has."""
    return tuple(host for host in LOOPBACK if _can_bind(host))


def _can_bind(host: str) -> bool:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def _format(run: tuple[str, ...], properties: Path, output: Path) -> None:
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # With "=", because an id may begin with a dash, which would be taken for another option.
    options = ("--standalone", f"--cluster-id={cluster_id}", "--config", str(properties))
    command = [*run, "kafka.tools.StorageTool", "format", *options]
    with output.open("w") as file:
        try:
            code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, timeout=60, check=False).returncode
        except subprocess.TimeoutExpired:
            raise NotStartedError("kafka", "could not format its storage within 60 s", output) from None
    if code:
        raise NotStartedError("kafka", f"could not format its storage (exit status {code})", output)
