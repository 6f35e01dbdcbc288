"""A cluster that asks who is there, over TLS: SASL and TLS settings pass through to the client."""

from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient

from featurestore.settings import Settings
from featurestore_cli.stack.kafka import KafkaBroker
from featurestore_cli.stack.ports import Ports
from tests.certificates import make_certificates
from tests.ingest.kafka.conftest import Topic, daemon, numbers, project, rows_in
from tests.services import ENV, running

pytestmark = pytest.mark.services

SECRET = "correct-horse"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Generator[tuple[str, str]]:
    """A broker with two listeners: one for anybody; over TLS, one for the user `ingest` who shows a certificate."""
    home, ports = tmp_path_factory.mktemp("secured"), Ports()
    broker = KafkaBroker(home=home / "kafka", ports={"127.0.0.1": ports.take()}, controller_port=ports.take())
    guarded = f"127.0.0.1:{ports.take()}"
    program = broker.program(ENV, print)
    identity = home / "identity.pem"
    identity.write_bytes(b"".join((certificates / f"server.{part}").read_bytes() for part in ("key", "pem")))
    properties = Path(program.command[-1])
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    text = properties.read_text()
    text = text.replace("LOOPBACK1://", f"GUARDED://{guarded},LOOPBACK1://")
    text = text.replace("LOOPBACK1:PLAINTEXT", "GUARDED:SASL_SSL,LOOPBACK1:PLAINTEXT", 1)
    properties.write_text(f"""{text}
sasl.enabled.mechanisms=PLAIN
listener.name.guarded.plain.sasl.jaas.config={module} required user_ingest="{SECRET}";
listener.name.guarded.ssl.client.auth=required
ssl.keystore.type=PEM
ssl.keystore.location={identity}
ssl.truststore.type=PEM
ssl.truststore.location={certificates / "ca.pem"}
""")
    with running(program, home / "logs"):
        yield broker.brokers, guarded


def client(certificates: Path, password: str, shown: str = "client") -> Mapping[str, str]:
    """As FEATURESTORE_KAFKA_CLIENT_… gives them."""
    env = {
        "SECURITY_PROTOCOL": "SASL_SSL",
        "SASL_MECHANISM": "PLAIN",
        "SASL_USERNAME": "ingest",
        "SASL_PASSWORD": password,
        "SSL_CA_LOCATION": str(certificates / "ca.pem"),
    }
    if shown:
        env |= {
            "SSL_CERTIFICATE_LOCATION": str(certificates / f"{shown}.pem"),
            "SSL_KEY_LOCATION": str(certificates / f"{shown}.key"),
        }
    return Settings.from_env({f"FEATURESTORE_KAFKA_CLIENT_{name}": value for name, value in env.items()}).kafka.client


def secured(brokers: str, client: Mapping[str, str], data_dir: Path) -> Settings:
    plain = Settings(data_dir=data_dir)
    return replace(
        plain,
        kafka=replace(plain.kafka, brokers=brokers, group=uuid4().hex, client=client),
        ingest=replace(plain.ingest, batch_age_s=0.1, disk_reserve_bytes=0),
    )


def test_who_knows_the_password_and_shows_a_certificate_reads(
    brokers: tuple[str, str], certificates: Path, tmp_path: Path
) -> None:
    topic = Topic("known", brokers[0], AdminClient({"bootstrap.servers": brokers[0]}))
    topic.create()
    topic.send_numbers(100)
    settings = secured(brokers[1], client(certificates, SECRET), tmp_path)
    with daemon(settings, project(topic.name)) as service:
        service.until(lambda: rows_in(settings) == 100)
    assert numbers(settings) == list(range(100))


@pytest.mark.parametrize(("password", "shown"), [("wrong-horse", "client"), (SECRET, "")])
def test_who_does_not_is_told_and_waits(
    brokers: tuple[str, str], certificates: Path, tmp_path: Path, password: str, shown: str
) -> None:
    settings = secured(brokers[1], client(certificates, password, shown), tmp_path)
    with daemon(settings, project("known")) as service:
        service.until(lambda: bool(service.errors))
        assert "Kafka does not answer" in service.errors[0]
        assert "horse" not in "".join([*service.errors, service.health.note])
