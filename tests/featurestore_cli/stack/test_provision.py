"""Whose services are used: those that were set, those with our mark, else our own. Never a stranger's."""

from collections.abc import Generator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from featurestore.settings import Settings
from featurestore_cli.stack.azurite import endpoint
from featurestore_cli.stack.azurite import mark as mark_azurite
from featurestore_cli.stack.kafka import MARKER, KafkaBroker, own_hosts, topics
from featurestore_cli.stack.ports import Ports
from featurestore_cli.stack.provision import Defaults, Site, provide_azurite, provide_kafka, provide_redis
from featurestore_cli.stack.redis import mark
from featurestore_cli.stack.runtimes import find_redis_server
from featurestore_cli.stack.service import Program, listens
from tests.services import ENV, Azurite, Kafka, create_topic, running

pytestmark = pytest.mark.services

PLATFORM = "0123456789ab"


def port_of(url: str) -> int:
    return urlsplit(url).port or 0


@pytest.fixture
def open_redis(tmp_path: Path) -> Generator[str]:
    """A Redis as somebody starts it by hand: no password."""
    port = Ports().take()
    command = (str(find_redis_server(ENV)), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path))
    with running(Program(name="stranger", command=command, answers=lambda: listens("127.0.0.1", port)), tmp_path):
        yield f"redis://127.0.0.1:{port}/0"


def site(
    data_dir: Path,
    *,
    defaults: Defaults | None = None,
    previous: Mapping[str, str] | None = None,
    **environ: str,
) -> Site:
    free = Ports()
    return Site(
        data_dir=data_dir,
        logs=data_dir / "logs",
        platform_id=PLATFORM,
        environ={**ENV, **environ},
        previous=previous or {},
        settings=Settings.from_env({**environ, "FEATURESTORE_DATA_DIR": str(data_dir)}),
        say=print,
        defaults=defaults or Defaults(kafka=free.take(), redis=free.take(), azurite=free.take()),
    )


def test_an_address_that_was_set_is_used_as_it_is(tmp_path: Path) -> None:
    nobody = Ports().take()
    given = site(
        tmp_path,
        FEATURESTORE_KAFKA_BROKERS=f"127.0.0.1:{nobody}",
        FEATURESTORE_REDIS_URL=f"redis://:secret@127.0.0.1:{nobody}/0",
        FEATURESTORE_AZURE_CONNECTION_STRING="AccountName=shop;AccountKey=a2V5",
    )
    for provided in (provide_kafka(given), provide_redis(given), provide_azurite(given)):
        assert not provided.started
        assert provided.env == {}
        assert "secret" not in provided.program.address
        assert "set by FEATURESTORE_" in provided.note


def test_a_strangers_redis_is_left_alone(tmp_path: Path, open_redis: str) -> None:
    found = provide_redis(site(tmp_path / "data", defaults=Defaults(redis=port_of(open_redis))))
    assert found.started
    assert port_of(found.env["FEATURESTORE_REDIS_URL"]) != port_of(open_redis)
    assert "not ours" in found.note
    with redis.Redis.from_url(open_redis) as client:
        assert client.dbsize() == 0


def test_a_redis_with_our_mark_is_used(tmp_path: Path, open_redis: str) -> None:
    mark(open_redis, PLATFORM)
    found = provide_redis(site(tmp_path / "data", defaults=Defaults(redis=port_of(open_redis))))
    assert not found.started
    assert found.env == {"FEATURESTORE_REDIS_URL": open_redis}


def test_another_platforms_redis_is_left_alone(tmp_path: Path, open_redis: str) -> None:
    mark(open_redis, "somebody else")
    assert provide_redis(site(tmp_path / "data", defaults=Defaults(redis=port_of(open_redis)))).started


def test_port_and_password_are_kept_from_the_last_time(tmp_path: Path) -> None:
    before = site(tmp_path)
    first = provide_redis(before)
    before.ports.close()
    again = provide_redis(site(tmp_path, previous=first.env))
    assert again.env == first.env
    assert again.program.command == first.program.command


def test_a_strangers_broker_is_left_alone(tmp_path: Path, kafka: Kafka) -> None:
    before = topics(kafka.brokers)
    found = provide_kafka(site(tmp_path, defaults=Defaults(kafka=int(kafka.brokers.rpartition(":")[2]))))
    assert found.started
    assert kafka.brokers not in found.env["FEATURESTORE_KAFKA_BROKERS"].split(",")
    assert topics(kafka.brokers) == before


@pytest.mark.skipif("::1" not in own_hosts(), reason="this machine has no IPv6")
def test_a_broker_on_ipv6_alone_is_found(tmp_path: Path) -> None:
    ports = Ports()
    port = ports.take()
    broker = KafkaBroker(home=tmp_path / "theirs", ports={"::1": port}, controller_port=ports.take())
    with running(broker.program(ENV, print), tmp_path):
        stranger = provide_kafka(site(tmp_path / "data", defaults=Defaults(kafka=port)))
        assert stranger.started
        assert str(port) not in stranger.env["FEATURESTORE_KAFKA_BROKERS"]

        create_topic(broker.brokers, f"{MARKER}{PLATFORM}")
        ours = provide_kafka(site(tmp_path / "data", defaults=Defaults(kafka=port)))
        assert not ours.started
        assert ours.env == {"FEATURESTORE_KAFKA_BROKERS": f"[::1]:{port}"}


def test_a_strangers_azurite_is_left_alone(tmp_path: Path, azurite: Azurite) -> None:
    port = port_of(endpoint(azurite.connection_string))
    found = provide_azurite(site(tmp_path, defaults=Defaults(azurite=port)))
    assert found.started
    assert port_of(endpoint(found.env["FEATURESTORE_AZURE_CONNECTION_STRING"])) != port


def test_a_service_of_the_last_time_that_still_runs_is_used(tmp_path: Path, redis_url: str, azurite: Azurite) -> None:
    mark(redis_url, PLATFORM)
    mark_azurite(azurite.connection_string, PLATFORM)
    previous = {
        "FEATURESTORE_REDIS_URL": redis_url,
        "FEATURESTORE_AZURE_CONNECTION_STRING": azurite.connection_string,
    }
    again = site(tmp_path, previous=previous)
    assert not provide_redis(again).started
    assert not provide_azurite(again).started
