"""One filled server for the tests that only ask."""

from collections.abc import Generator
from pathlib import Path

import pytest
import redis

from tests.featurestore_serving.platform import Running, fill, running, settings
from tests.services import Redis


@pytest.fixture(scope="module")
def server(redis_server: Redis, tmp_path_factory: pytest.TempPathFactory) -> Generator[Running]:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    fill(redis_server.url)
    with running(settings(redis_server.url, tmp_path_factory.mktemp("data"))) as one:
        yield one


@pytest.fixture
def filled(redis_url: str) -> str:
    fill(redis_url)
    return redis_url


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path
