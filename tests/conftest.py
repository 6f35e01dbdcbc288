"""Fixtures that every test may use: the real services, started once per session and stopped at its end."""

from collections import Counter, defaultdict
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest
import redis

from tests.services import ENV, Azurite, Kafka, Redis, azurite_process, kafka_broker, redis_process

# How long an example takes says more about what else runs than about the code.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run the soak tests, and only them")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Soak tests run when asked for; tests of kind `system` where the machine is said to be prepared for them."""
    soak = config.getoption("--soak")
    config.hook.pytest_deselected(items=[item for item in items if ("soak" in item.keywords) is not soak])
    items[:] = [item for item in items if ("soak" in item.keywords) == soak]
    if ENV.get("TEST_SYSTEM") != "1":
        skip = pytest.mark.skip(reason="needs root or Debian packages (TEST_SYSTEM=1, see .ci/run)")
        for item in items:
            if "system" in item.keywords:
                item.add_marker(skip)
    _begin_with_the_longest(items)


def _begin_with_the_longest(items: list[pytest.Item]) -> None:
    """Whole files, so that at the end of a run no worker waits for one that has just begun a long one."""
    marks, tests = defaultdict[Path, set[str]](set), Counter(item.path for item in items)
    for item in items:
        marks[item.path].update(mark.name for mark in item.iter_markers())
    items.sort(key=lambda item: (not marks[item.path] & {"e2e", "slow"}, -tests[item.path]))


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
