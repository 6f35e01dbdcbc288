"""Guarded bulk writes against a plain pipelined HSET of the same values through redis-py: CPU of the client.

python -m benchmarks.online_write --entities 20000
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import psutil
import pyarrow as pa
import redis

from benchmarks.online_data import ALL, redis_server, rows
from featurestore.online.keys import Keys
from featurestore.online.redis_store import RedisOnlineStore
from featurestore.online.writer import fields_by_key

VIEW = ALL[0]
PIPELINE = 1_000
GOAL = 2.0

Hashes = Mapping[bytes, Mapping[bytes, bytes]]


def plain(client: redis.Redis, hashes: Hashes) -> None:
    """What the guarded write stores, without the guard; the bytes were made outside the clock."""
    pipe = client.pipeline(transaction=False)
    for number, (key, fields) in enumerate(hashes.items(), 1):
        pipe.hset(key, mapping=dict(fields))
        if number % PIPELINE == 0:
            pipe.execute()
    pipe.execute()


def measured(call: Callable[[], object], server: psutil.Process) -> tuple[float, float, float]:
    """Seconds: of the client's CPU, of the server's CPU, on the clock."""
    before, wall, cpu = server.cpu_times(), time.perf_counter(), time.process_time()
    call()
    cpu, wall, after = time.process_time() - cpu, time.perf_counter() - wall, server.cpu_times()
    return cpu, after.user + after.system - before.user - before.system, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entities", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    found: dict[str, list[tuple[float, float, float]]] = {"guarded push": [], "plain HSET by redis-py": []}
    with redis_server() as url, redis.Redis.from_url(url) as client:
        server = psutil.Process(client.info("server")["process_id"])
        store = RedisOnlineStore(url)
        for turn in range(args.repeats + 1):  # the first warms up
            # Every row is newer than what is stored, so that each guarded write writes.
            table: pa.Table = rows(VIEW, args.entities, seed=turn, later_s=turn)
            hashes = fields_by_key(VIEW, table, Keys())
            turns = {
                "guarded push": measured(lambda table=table: store.push(VIEW, table, []), server),
                "plain HSET by redis-py": measured(lambda hashes=hashes: plain(client, hashes), server),
            }
            if turn:
                for name, one in turns.items():
                    found[name].append(one)
        store.close()
    print(f"{args.entities} entities x {len(VIEW.online_features)} features")
    medians = {name: [statistics.median(part) for part in zip(*all_, strict=True)] for name, all_ in found.items()}
    for name, (cpu, server_cpu, wall) in medians.items():
        each = 1e6 / args.entities
        print(f"  {name:24} client {cpu * each:6.1f} µs CPU, server {server_cpu * each:6.1f} µs, {wall * each:6.1f} µs")
    ratio = medians["guarded push"][0] / medians["plain HSET by redis-py"][0]
    print(f"  client CPU: {ratio:.2f} times plain HSET (goal {GOAL:g})")


if __name__ == "__main__":
    main()
