"""A cluster that asks who is there: SASL settings pass through to the client."""

from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient

from featurestore.settings import Settings
from featurestore_cli.stack.kafka import KafkaBroker
from featurestore_cli.stack.ports import Ports
from tests.ingest.kafka.conftest import Topic, daemon, numbers, project, rows_in
from tests.services import ENV, running

pytestmark = pytest.mark.services

SECRET = "correct-horse"


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[str, str]]:
    """A broker with two listeners: one for anybody, one for the user `ingest`."""
    home, ports = tmp_path_factory.mktemp("sasl"), Ports()
    broker = KafkaBroker(home=home / "kafka", ports={"127.0.0.1": ports.take()}, controller_port=ports.take())
    guarded = f"127.0.0.1:{ports.take()}"
    program = broker.program(ENV, print)
    properties = Path(program.command[-1])
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    text = properties.read_text()
    text = text.replace("LOOPBACK1://", f"GUARDED://{guarded},LOOPBACK1://")
    text = text.replace("LOOPBACK1:PLAINTEXT", "GUARDED:SASL_PLAINTEXT,LOOPBACK1:PLAINTEXT", 1)
    text += "\nsasl.enabled.mechanisms=PLAIN\n"
    text += f'listener.name.guarded.plain.sasl.jaas.config={module} required user_ingest="{SECRET}";\n'
    properties.write_text(text)
    with running(program, home / "logs"):
        yield broker.brokers, guarded


def client(password: str) -> Mapping[str, str]:
    """As FEATURESTORE_KAFKA_CLIENT_… gives them."""
    env = {
        "FEATURESTORE_KAFKA_CLIENT_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "FEATURESTORE_KAFKA_CLIENT_SASL_MECHANISM": "PLAIN",
        "FEATURESTORE_KAFKA_CLIENT_SASL_USERNAME": "ingest",
        "FEATURESTORE_KAFKA_CLIENT_SASL_PASSWORD": password,
    }
    return Settings.from_env(env).kafka.client


def guarded_settings(brokers: str, password: str, data_dir: Path) -> Settings:
    plain = Settings(data_dir=data_dir)
    return replace(
        plain,
        kafka=replace(plain.kafka, brokers=brokers, group=uuid4().hex, client=client(password)),
        ingest=replace(plain.ingest, batch_age_s=0.1, disk_reserve_bytes=0),
    )


def test_who_knows_the_password_reads(brokers: tuple[str, str], tmp_path: Path) -> None:
    topic = Topic("known", brokers[0], AdminClient({"bootstrap.servers": brokers[0]}))
    topic.create()
    topic.send_numbers(100)
    settings = guarded_settings(brokers[1], SECRET, tmp_path)
    with daemon(settings, project(topic.name)) as service:
        service.until(lambda: rows_in(settings) == 100)
    assert numbers(settings) == list(range(100))


def test_who_does_not_is_told_and_waits(brokers: tuple[str, str], tmp_path: Path) -> None:
    with daemon(guarded_settings(brokers[1], "wrong-horse", tmp_path), project("known")) as service:
        service.until(lambda: bool(service.errors))
        assert "Kafka does not answer" in service.errors[0]
        assert "horse" not in "".join([*service.errors, service.health.note])
