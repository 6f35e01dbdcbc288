"""P3: within one version of a view an online value never moves back, under any interleaving of writers."""

import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import count, permutations
from multiprocessing import get_context

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.online.redis_store import RedisOnlineStore
from featurestore.order import Order, tie
from tests.featurestore.online.examples import ACTIVITY, FEATURES, NOW, NOW_US, row, table
from tests.featurestore.online.racing import ENTITIES, WRITERS, race, stored_order
from tests.services import Redis

pytestmark = pytest.mark.services

fresh_entity = (f"entity {number}" for number in count())

# Few values for each part, so that ties are the rule.
places = st.builds(
    Order,
    event_timestamp=st.integers(NOW_US - 2, NOW_US + 1),
    created_at=st.integers(NOW_US, NOW_US + 2),
    sequence=st.one_of(st.integers(0, 2), st.just(2**53)),
    tie=st.sampled_from([tie("a"), tie("b"), 0, 2**52 - 1]),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pushes=st.lists(st.lists(places, max_size=4), min_size=1, max_size=6))
def test_after_any_pushes_the_newest_row_is_online(redis_server: Redis, pushes: list[list[Order]]) -> None:
    store, entity_id = RedisOnlineStore(redis_server.url), next(fresh_entity)
    value_of: dict[Order, float] = {}
    for push in pushes:
        for place in push:
            value_of.setdefault(place, float(len(value_of)))
        rows = [row(entity_id, place, score=value_of[place]) for place in push]
        counts = store.push(ACTIVITY, table(rows), [])
        assert counts.written + counts.stale + counts.folded == len(push)
        [found] = store.read("user", [entity_id], FEATURES, NOW)
        assert found["score"].value == (value_of[max(value_of)] if value_of else None)
    store.close()


# ---- two writers, every interleaving of their steps


def interleavings(steps: tuple[int, int]) -> Iterator[tuple[int, ...]]:
    yield from sorted(set(permutations((0,) * steps[0] + (1,) * steps[1])))


def older_wins_in(how: str, url: str) -> int:
    """In how many interleavings of an older and a newer write the older one stays."""
    older, newer = Order(NOW_US, NOW_US, 1, 0), Order(NOW_US, NOW_US + 1, 0, 0)
    wrong = 0
    with redis.Redis.from_url(url) as client:
        for interleaving in interleavings((2, 2)):
            entity_id = next(fresh_entity)
            writers: list[Generator[None]] = [WRITERS[how](url, [(entity_id, place)]) for place in (older, newer)]
            for turn in interleaving:
                next(writers[turn], None)
            wrong += stored_order(client, entity_id) != newer
    return wrong


def test_no_interleaving_lets_the_older_row_win(redis_url: str) -> None:
    assert older_wins_in("guarded", redis_url) == 0


@pytest.mark.parametrize("how", ["plain", "read-then-write"])
def test_other_ways_of_writing_let_it_win(redis_url: str, how: str) -> None:
    assert older_wins_in(how, redis_url) > 0


# ---- racing processes


class Watch:
    """Reads all the time; remembers every entity that moved back."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.seen: dict[str, Order] = {}
        self.moved_back: set[str] = set()

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(10)

    def _watch(self) -> None:
        with redis.Redis.from_url(self._url) as client:
            while not self._stopping.is_set():
                for entity_id in ENTITIES:
                    now = stored_order(client, entity_id)
                    before = self.seen.get(entity_id)
                    if before is not None and (now is None or now < before):
                        self.moved_back.add(entity_id)
                    if now is not None:
                        self.seen[entity_id] = now


@pytest.fixture(scope="module")
def racers() -> Generator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(4, get_context("spawn")) as pool:
        yield pool


def raced(how: str, url: str, racers: ProcessPoolExecutor) -> tuple[set[str], set[str]]:
    """Four processes at once; which entities moved back, and which did not end at the newest row."""
    with Watch(url) as watch:
        results = list(racers.map(race, [how] * 4, [url] * 4, range(4), timeout=60))
    newest: dict[str, Order] = {}
    for entity_id, place in (one for result in results for one in result):
        newest[entity_id] = max(place, newest.get(entity_id, place))
    with redis.Redis.from_url(url) as client:
        wrong = {entity_id for entity_id, place in newest.items() if stored_order(client, entity_id) != place}
    return watch.moved_back, wrong


def test_racing_processes_never_move_a_value_back(redis_url: str, racers: ProcessPoolExecutor) -> None:
    assert raced("guarded", redis_url, racers) == (set(), set())


@pytest.mark.parametrize("how", ["plain", "read-then-write"])
def test_the_same_race_with_other_ways_of_writing_moves_values_back(
    redis_url: str, racers: ProcessPoolExecutor, how: str
) -> None:
    assert any(raced(how, redis_url, racers) != (set(), set()) for _ in range(10))
