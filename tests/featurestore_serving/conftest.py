"""One filled server for the tests that only ask."""

from collections.abc import Generator
from pathlib import Path

import pytest
import redis

from featurestore_serving import restore
from tests.featurestore_serving.platform import Running, fill, running, settings
from tests.services import Redis


@pytest.fixture(scope="module")
def server(redis_server: Redis, tmp_path_factory: pytest.TempPathFactory) -> Generator[Running]:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    fill(redis_server.url)
    with running(settings(redis_server.url, tmp_path_factory.mktemp("data"), model_bytes=1_000_000)) as one:
        yield one


@pytest.fixture(autouse=True, scope="session")
def short_look_up() -> Generator[None]:
    """No database service answers here, and nobody waits long for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restore, "LOOK_UP_S", 0.05)
        yield


@pytest.fixture
def filled(redis_url: str) -> str:
    fill(redis_url)
    return redis_url


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path
