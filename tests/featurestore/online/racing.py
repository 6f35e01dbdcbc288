"""Writers that race: the store's own, and two that are not safe, to show that the race is one."""

import random
from collections.abc import Generator, Sequence

import redis

from featurestore.online.keys import Keys, order_field
from featurestore.online.redis_store import RedisOnlineStore
from featurestore.order import Order, tie
from tests.featurestore.online.examples import ACTIVITY, NOW_US, row, table

ENTITIES = tuple(str(number) for number in range(30))
BATCHES, ROWS = 40, 25
FIELD = order_field(ACTIVITY.name, ACTIVITY.version)

Placed = tuple[str, Order]


def guarded(url: str, rows: Sequence[Placed]) -> Generator[None]:
    """The store's own way; one step."""
    store = RedisOnlineStore(url)
    store.push(ACTIVITY, table([row(entity_id, place, score=1.0) for entity_id, place in rows]), [])
    store.close()
    yield


def plain(url: str, rows: Sequence[Placed]) -> Generator[None]:
    """Negative control: write what comes."""
    with redis.Redis.from_url(url) as client:
        for entity_id, place in rows:
            client.hset(key(entity_id), FIELD, place.to_bytes())
    yield


def read_then_write(url: str, rows: Sequence[Placed]) -> Generator[None]:
    """Negative control: look first, then write what is newer."""
    with redis.Redis.from_url(url) as client:
        stored = {entity_id: client.hget(key(entity_id), FIELD) for entity_id, _ in rows}
        yield
        for entity_id, place in sorted(rows, key=lambda one: one[1]):
            before = stored[entity_id]
            if before is None or Order.from_bytes(before) <= place:
                client.hset(key(entity_id), FIELD, place.to_bytes())
    yield


WRITERS = {"guarded": guarded, "plain": plain, "read-then-write": read_then_write}


def race(how: str, url: str, seed: int) -> list[Placed]:
    """One process of a race; returns the newest row that it wrote of each entity."""
    dice = random.Random(seed)
    newest: dict[str, Order] = {}
    for batch in range(BATCHES):
        rows = [random_place(dice, seed, batch, number) for number in range(ROWS)]
        for _ in WRITERS[how](url, rows):
            pass
        for entity_id, place in rows:
            newest[entity_id] = max(place, newest.get(entity_id, place))
    return list(newest.items())


def random_place(dice: random.Random, seed: int, batch: int, sequence: int) -> Placed:
    """Batches are newer and newer, and overlap, as those of a stream; else all but the first would be stale."""
    event, created = NOW_US + 10 * batch + dice.randint(0, 20), NOW_US + dice.randint(0, 3)
    return dice.choice(ENTITIES), Order(event, created, sequence, tie(f"{seed}-{batch}"))


def stored_order(client: redis.Redis, entity_id: str) -> Order | None:
    data = client.hget(key(entity_id), FIELD)
    return None if data is None else Order.from_bytes(data)


def key(entity_id: str) -> bytes:
    return Keys().entity_prefix("user") + entity_id.encode() + b"}"
