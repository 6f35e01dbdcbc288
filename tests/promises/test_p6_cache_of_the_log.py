"""P6, online half: Redis is a cache of the log. What the log has and Redis does not list is pushed again, and that
is enough: after any crash, flush or loss of its newest writes, Redis is equal to the log."""

import random
import threading
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest
import redis

from featurestore.errors import StoreUnavailableError
from featurestore.online.redis_store import RedisOnlineStore
from featurestore.online.values import Pushed
from featurestore.order import Order, tie
from tests.featurestore.online.examples import ACTIVITY, FEATURES, NOW, NOW_US, SECOND, row, table
from tests.featurestore.online.faults import Way, way_to
from tests.services import redis_process

pytestmark = pytest.mark.services

ENTITIES = [str(number) for number in range(6)]
FIRST_LINE = 1_790_000_000_000_000
HISTORIES = 60


@dataclass
class Log:
    """The log and its ledger, as dictionaries; what the marks are is the store's business."""

    rows: dict[int, list[dict[str, object]]] = field(default_factory=dict)

    def append(self, rows: list[dict[str, object]]) -> int:
        line = FIRST_LINE + len(self.rows)
        self.rows[line] = rows
        return line

    def newest(self) -> dict[str, object]:
        every = sorted((one for rows in self.rows.values() for one in rows), key=place)
        return {str(one["entity_id"]): one["score"] for one in every}


def place(one: dict[str, object]) -> tuple[object, ...]:
    return one["event_timestamp"], one["created_at"], one["sequence"], one["tie"]


class Listed:
    """The right way: Redis lists what is pushed."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def push(self, store: RedisOnlineStore, line: int) -> None:
        store.push(ACTIVITY, table(self._log.rows[line]), [line])

    def settle(self, store: RedisOnlineStore, before: Pushed, lines: Sequence[int]) -> None:
        store.settle(ACTIVITY, [line for line in lines if line > before.position], above=before.position)

    def unlisted(self, store: RedisOnlineStore) -> list[int]:
        pushed = store.pushed(ACTIVITY)
        return [line for line in self._log.rows if line not in pushed]


class Remembered(Listed):
    """The negative control: the same pushes, listed outside Redis."""

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self._lines: set[int] = set()

    def push(self, store: RedisOnlineStore, line: int) -> None:
        super().push(store, line)
        self._lines.add(line)

    def unlisted(self, store: RedisOnlineStore) -> list[int]:
        return [line for line in self._log.rows if line not in self._lines]


@pytest.fixture
def way(redis_url: str) -> Generator[Way]:
    with way_to(redis_url) as one:
        yield one


def random_rows(dice: random.Random, batch: int) -> list[dict[str, object]]:
    """Rows of one batch, with events out of order and some of the same time."""
    return [
        row(
            dice.choice(ENTITIES),
            Order(NOW_US - dice.randint(0, 20) * SECOND, NOW_US + batch, number, tie(str(batch))),
            score=dice.random(),
        )
        for number in range(dice.randint(0, 4))
    ]


def worker(todo: "SimpleQueue[int]", marks: Listed, store: RedisOnlineStore, seed: float) -> None:
    """Runs, one after the other; some crash between the log and the push, some fail in it."""
    dice = random.Random(seed)
    with suppress(Empty):
        while True:
            line = todo.get_nowait()
            if dice.random() > 0.1:
                with suppress(StoreUnavailableError):
                    marks.push(store, line)


def live(dice: random.Random, log: Log, marks: Listed, way: Way, store: RedisOnlineStore, flush: redis.Redis) -> None:
    """Batches are appended and pushed by three workers, while a connection breaks or Redis is flushed."""
    todo: SimpleQueue[int] = SimpleQueue()
    for _ in range(15):
        todo.put(log.append(random_rows(dice, len(log.rows))))

    def cut() -> bool:
        return True

    def emptied() -> bool:
        flush.flushall()
        return False

    threads = [threading.Thread(target=worker, args=(todo, marks, store, dice.random())) for _ in range(3)]
    before, lines = store.pushed(ACTIVITY), list(log.rows)
    way.after(dice.randint(1, 12_000), dice.choice((cut, emptied)))
    for thread in threads:
        thread.start()
    for thread in (*threads, threading.current_thread()):
        with suppress(StoreUnavailableError):
            marks.settle(store, before, lines)  # by what was known before the fault
        if thread is not threading.current_thread():
            thread.join(20)


def is_equal_after(marks_of: type[Listed], seed: int, url: str, way: Way) -> bool:
    """One random history; then everything that is not listed is pushed again until all is listed."""
    dice, log = random.Random(seed), Log()
    marks = marks_of(log)
    with redis.Redis.from_url(url) as flush:
        flush.flushall()
        store = RedisOnlineStore(way.url, timeout_s=5)
        try:
            for _ in range(2):
                live(dice, log, marks, way, store, flush)
                if dice.random() < 0.2:
                    flush.flushall()
            way.after(0, lambda: False)
            while lines := marks.unlisted(store):
                for line in dice.sample(lines, len(lines)):
                    marks.push(store, line)
                marks.settle(store, Pushed(), list(log.rows))
            return online(store) == log.newest()
        finally:
            store.close()


def online(store: RedisOnlineStore) -> dict[str, object]:
    found = store.read("user", ENTITIES, FEATURES, NOW)
    return {
        entity_id: one["score"].value
        for entity_id, one in zip(ENTITIES, found, strict=True)
        if one["score"].event_timestamp is not None
    }


def test_online_equals_the_log_after_crashes_and_flushes(redis_url: str, way: Way) -> None:
    unequal = [seed for seed in range(HISTORIES) if not is_equal_after(Listed, seed, redis_url, way)]
    assert unequal == []


def test_a_list_outside_redis_would_not_do(redis_url: str, way: Way) -> None:
    assert not all(is_equal_after(Remembered, seed, redis_url, way) for seed in range(HISTORIES))


@pytest.mark.parametrize(("marks_of", "heals"), [(Listed, True), (Remembered, False)])
def test_a_redis_that_lost_its_newest_writes(tmp_path: Path, marks_of: type[Listed], heals: bool) -> None:
    """Stopped, its append-only file cut anywhere in its newer half, started again."""
    dice, log, port, equal = random.Random(3), Log(), 0, []
    marks = marks_of(log)
    for _ in range(6):
        with redis_process(tmp_path, port=port) as service:
            port = int(service.url.rsplit(":", 1)[1].split("/")[0])
            store = RedisOnlineStore(service.url)
            while lines := marks.unlisted(store):
                for line in lines:
                    marks.push(store, line)
            marks.settle(store, Pushed(), list(log.rows))
            equal.append(online(store) == log.newest())
            for _ in range(20):
                marks.push(store, log.append(random_rows(dice, len(log.rows))))
                if dice.random() < 0.1:
                    marks.settle(store, Pushed(), list(log.rows))
            store.close()
        [file] = sorted(tmp_path.rglob("*.aof*"), key=lambda path: path.stat().st_size)[-1:]
        with file.open("r+b") as tail:
            tail.truncate(dice.randint(file.stat().st_size // 2, file.stat().st_size))
    assert all(equal) is heals
