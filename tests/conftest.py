"""Fixtures that every test may use: the real services, started once per session and stopped at its end."""

from collections.abc import Generator

import pytest
import redis

from tests.services import Azurite, Kafka, Redis, azurite_process, kafka_broker, redis_process


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Generator[Kafka]:
    """A broker without topics; a test creates its own, under names of its own."""
    with kafka_broker(tmp_path_factory.mktemp("kafka")) as service:
        yield service


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Redis]:
    with redis_process(tmp_path_factory.mktemp("redis")) as service:
        yield service


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Generator[Azurite]:
    with azurite_process(tmp_path_factory.mktemp("azurite")) as service:
        yield service


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """The session's Redis, emptied."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url
