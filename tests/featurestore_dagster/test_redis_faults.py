"""A Redis that is killed, emptied, rolled back or full: nothing is lost, nothing is parked, all heals by itself."""

import os
import shutil
import signal
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
import redis

from featurestore.online.redis_store import RedisOnlineStore
from featurestore_dagster import backlog
from featurestore_dagster.checks.parity import parity
from featurestore_dagster.checks.scope import Scope
from tests.featurestore_dagster.platform import LAST, PROJECT, Platform
from tests.services import Redis, eventually, redis_process

pytestmark = [pytest.mark.services, pytest.mark.slow]

[PARITY] = parity(PROJECT)
PAGES = tuple(f"page {number}" for number in range(40))


@dataclass
class Faulty:
    """A Redis that can be stopped, tampered with and started again at its address."""

    home: Path
    stack: ExitStack
    server: Redis = field(init=False)
    port: int = 0

    def start(self) -> None:
        self.server = self.stack.enter_context(redis_process(self.home, port=self.port))
        self.port = int(self.server.url.rpartition(":")[2].partition("/")[0])

    def kill(self) -> None:
        os.kill(self.client.info("server")["process_id"], signal.SIGKILL)
        eventually(lambda: self.server.child.exit_code() is not None)

    @property
    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.server.url)

    @property
    def log(self) -> Path:
        """The append-only file."""
        return max(self.home.rglob("*.aof*"), key=lambda path: path.stat().st_size)


@pytest.fixture
def faulty(tmp_path: Path) -> Generator[Faulty]:
    with ExitStack() as stack:
        one = Faulty(tmp_path / "redis", stack)
        one.start()
        yield one


def killed(faulty: Faulty, apply: Callable[[], None]) -> None:
    faulty.kill()
    apply()  # cannot be pushed
    faulty.start()


def flushed(faulty: Faulty, apply: Callable[[], None]) -> None:
    apply()
    faulty.client.flushall()


def tail_cut(faulty: Faulty, apply: Callable[[], None]) -> None:
    apply()
    faulty.kill()
    size = faulty.log.stat().st_size
    with faulty.log.open("r+b") as file:
        file.truncate(size - 1_500)
    faulty.start()


def rolled_back(faulty: Faulty, apply: Callable[[], None]) -> None:
    """The file of a while ago is put in the place of today's."""
    kept = shutil.copy(faulty.log, faulty.home / "kept")
    apply()
    faulty.kill()
    shutil.copy(kept, faulty.log)
    faulty.start()


def out_of_memory(faulty: Faulty, apply: Callable[[], None]) -> None:
    faulty.client.config_set("maxmemory", 1)
    apply()  # is refused
    faulty.client.config_set("maxmemory", 0)


@pytest.mark.parametrize(
    ("fault", "rebuilt"),  # from the log, or from the batches
    [
        (killed, False),
        (flushed, False),
        (flushed, True),
        (tail_cut, False),
        (rolled_back, False),
        (rolled_back, True),
        (out_of_memory, False),
    ],
)
def test_it_heals_by_itself(
    platform: Platform,
    faulty: Faulty,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[Faulty, Callable[[], None]], None],
    rebuilt: bool,
) -> None:
    monkeypatch.setattr(backlog, "REBUILD_ABOVE", 0 if rebuilt else 500)
    store = RedisOnlineStore(faulty.server.url, timeout_s=5)
    platform.resources["online"] = store
    platform.land(*PAGES)
    heal(platform)

    def apply() -> None:
        platform.land(*(f"later {page}" for page in PAGES))
        for request in platform.tick():
            platform.run(request)
        platform.now += timedelta(minutes=10)

    fault(faulty, apply)
    heal(platform)
    found = store.read("user", [str(number) for number in range(40)], [LAST["page"], LAST["clicks_1h"]], platform.now)
    assert [one["page"].value for one in found] == [f"later {page}" for page in PAGES]
    assert PARITY.result(scope(platform)).passed
    store.close()


def scope(platform: Platform) -> Scope:
    with platform.connect() as services:
        return Scope.of(platform.project, services.landing, services.database, services.online, services.backlog)


def heal(platform: Platform) -> None:
    """What the sensors do, until they have nothing to do."""
    for _ in range(20):
        requests, loss = platform.tick(), platform.look_for_loss()
        for request in requests:
            platform.run(request)
        if isinstance(loss, dg.RunRequest):
            assert platform.rebuild(loss)
        elif not requests and platform.said.startswith("nothing waits"):
            assert "parked" not in platform.said
            return
        platform.now += timedelta(minutes=2)
    raise AssertionError(f"it does not heal: {platform.said}")
