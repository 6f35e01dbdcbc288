"""Library reads of row features and windows against redis-py's HMGET of the same fields, which decodes nothing; awaited
reads against its asyncio client.

python -m benchmarks.online_read --repeats 4000
"""

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence

import redis
import redis.asyncio

from benchmarks.online_data import ALL, PROJECT, WINDOWS, filled_redis
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.online.keys import Keys, ring_suffix, value_field
from featurestore.online.redis_store import RedisOnlineStore
from featurestore.store import Store

PREFIX = Keys().entity_prefix("user")
TEN = [ALL[0][feature.name] for feature in ALL[0].online_features[:10]]
FIELDS = [value_field(feature.name, 1) for feature in TEN]
GOALS = {1: 1.3, 100: 1.2}

[RING] = WINDOWS.rings
WEEK = [WINDOWS[name] for name in WINDOWS.windows]
SUFFIX = ring_suffix(WINDOWS.name, WINDOWS.version, RING)
SLOTS = [b"%d" % slot for slot in range(RING.slots)]
GOAL_OF_WINDOWS = 3.0


def hmget(client: redis.Redis, users: Sequence[int], suffix: bytes = b"", fields: Sequence[bytes] = FIELDS) -> object:
    keys = [b"%s%d}%s" % (PREFIX, user, suffix) for user in users]
    if len(keys) == 1:
        return client.hmget(keys[0], fields)
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.hmget(key, fields)
    return pipe.execute()


def compare(ways: dict[str, Callable[[list[int]], object]], entities: int, rows: int, repeats: int) -> dict[str, float]:
    """Microseconds of each way, the median; the ways take turns with every read."""
    dice = random.Random(1)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 50):  # the first warm up
        users = [dice.randrange(entities) for _ in range(rows)]
        for name, read in ways.items():
            start = time.perf_counter()
            read(users)
            if turn >= 50:
                taken[name].append((time.perf_counter() - start) * 1e6)
    return {name: statistics.median(all_) for name, all_ in taken.items()}


async def together(read: Callable[[int], Awaitable[object]], entities: int, tasks: int, each: int) -> float:
    """Microseconds of CPU per read of tasks that read one entity after the other."""
    dice = random.Random(1)

    async def one() -> None:
        for _ in range(each):
            await read(dice.randrange(entities))

    start = time.process_time()
    await asyncio.gather(*(one() for _ in range(tasks)))
    return (time.process_time() - start) / (tasks * each) * 1e6


async def compare_awaited(store: Store, url: str, entities: int, repeats: int) -> None:
    """Both in turns; medians."""
    client, tasks, taken = redis.asyncio.Redis.from_url(url), 32, dict[str, list[float]]()
    ways: dict[str, Callable[[int], Awaitable[object]]] = {
        "Store.online_async": lambda user: store.online_async({"user_id": [user]}, TEN),
        "redis.asyncio HMGET": lambda user: client.hmget(b"%s%d}" % (PREFIX, user), FIELDS),
    }
    for turn in range(6):  # the first warms up
        for name, read in ways.items():
            micros = await together(read, entities, tasks, max(5, repeats // tasks))
            if turn:
                taken.setdefault(name, []).append(micros)
    await client.aclose()
    found = {name: statistics.median(all_) for name, all_ in taken.items()}
    print(f"1 entity x {len(TEN)} features, awaited by {tasks} tasks")
    for name, micros in found.items():
        print(f"  {name:19} {micros:8.1f} µs CPU")
    print(f"  ratio {found['Store.online_async'] / found['redis.asyncio HMGET']:.2f}")


def show(what: str, found: dict[str, float], rows: int, goal: float) -> None:
    print(f"{rows} entities x {what}")
    for name, micros in found.items():
        print(f"  {name:16} p50 {micros:8.1f} µs")
    print(f"  ratio {found['Store.online'] / found['redis-py HMGET']:.2f} (goal {goal})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entities", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=4_000)
    args = parser.parse_args()
    with filled_redis(args.entities) as url, redis.Redis.from_url(url) as client:
        store = Store(PROJECT, EmbeddedDatabase(), RedisOnlineStore(url))
        for rows, goal in GOALS.items():
            ways: dict[str, Callable[[list[int]], object]] = {
                "Store.online": lambda users: store.online({"user_id": users}, TEN),
                "redis-py HMGET": lambda users: hmget(client, users),
            }
            show(f"{len(TEN)} features", compare(ways, args.entities, rows, max(20, args.repeats // rows)), rows, goal)
            ways = {
                "Store.online": lambda users: store.online({"user_id": users}, WEEK),
                "redis-py HMGET": lambda users: hmget(client, users, SUFFIX, SLOTS),
            }
            found = compare(ways, args.entities, rows, max(20, args.repeats // rows))
            show(f"{len(WEEK)} windows of 7 days", found, rows, GOAL_OF_WINDOWS)
        asyncio.run(compare_awaited(store, url, args.entities, args.repeats))
        store.close()


if __name__ == "__main__":
    main()
