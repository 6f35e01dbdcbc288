"""Queries through the database service: what the queue costs a small one, and what readers leave to the writers.

python -m benchmarks.database_read --seconds 5
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.database_write import job, rows
from benchmarks.online_data import redis_server
from featurestore.database.client import QueueDatabase
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.settings import Settings
from tests.featurestore.database.examples import SCHEMA
from tests.featurestore.database.serving import process, settings_for

LOG_ROWS, JOB_ROWS = 1_000_000, 1_000
READERS, WRITERS = 10, 2
GOAL_MS, GOAL_SHARE = 3.0, 0.5

POINT = "SELECT job, note FROM (VALUES (1, 'a'), (2, 'b'), (3, 'c')) AS known(job, note) WHERE job = $n"
NEWEST = "SELECT * FROM log.activity_v1 WHERE entity_id = $id ORDER BY event_timestamp DESC LIMIT 1"


def times_ms(call: Callable[[int], object], count: int) -> list[float]:
    taken: list[float] = []
    for number in range(count):
        began = time.perf_counter()
        call(number)
        taken.append((time.perf_counter() - began) * 1e3)
    return taken


def overhead(
    served: QueueDatabase, own: EmbeddedDatabase, sql: str, parameter: Callable[[int], dict[str, object]]
) -> None:
    """One client, the same query in turn through the queue and in this process."""
    ways = {"queue": served, "own": own}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(6):  # the first warms up
        for name, database in ways.items():
            once = times_ms(lambda n, database=database: database.query_arrow(sql, parameter(n)), 50)  # type: ignore[arg-type]
            taken[name] += once if turn else []
    queue, alone = (statistics.median(taken[name]) for name in ways)
    tail = statistics.quantiles(taken["queue"], n=100)[98]
    print(
        f"  {sql[:44]:44} queue p50 {queue:6.2f} ms (p99 {tail:6.2f}), own p50 {alone:6.2f} ms, "
        f"beyond {queue - alone:5.2f} ms (goal {GOAL_MS:g})",
        flush=True,
    )


def written_per_s(settings: Settings, seconds: float, readers: int) -> tuple[float, float]:
    """Jobs written and queries answered a second, with so many readers beside the writers."""
    over = threading.Event()
    counts: list[int] = []

    def repeat(do: Callable[[QueueDatabase, int], object]) -> int:
        database, number = QueueDatabase.of(settings), 0
        while not over.is_set():
            do(database, number)
            number += 1
        database.close()
        return number

    table = rows(JOB_ROWS, 0)
    with ThreadPoolExecutor(WRITERS + readers) as pool:
        name = time.time_ns()
        write = [
            pool.submit(repeat, lambda database, n, w=w: database.append(job(table, f"{name}-{w}-{n}")))
            for w in range(WRITERS)
        ]
        read = [
            pool.submit(repeat, lambda database, n: database.query_arrow(NEWEST, {"id": str(n)}))
            for _ in range(readers)
        ]
        over.wait(seconds)
        over.set()
        counts = [sum(one.result() for one in working) for working in (write, read)]
    return counts[0] / seconds, counts[1] / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, redis_server() as url:
        settings = settings_for(Path(directory) / "data", url)
        service, served, own = process(settings), QueueDatabase.of(settings), EmbeddedDatabase()
        own.ensure(SCHEMA)
        try:
            for first in range(0, LOG_ROWS, 100_000):
                one = job(rows(100_000, first), f"log-{first}")
                served.append(one)
                own.append(one)
            print("one client:")
            overhead(served, own, POINT, lambda n: {"n": n % 3})
            overhead(served, own, NEWEST, lambda n: {"id": str(n)})
            print(f"{WRITERS} writers of {JOB_ROWS} rows a job, {READERS} readers of the newest row of an entity:")
            shares: list[float] = []
            for _ in range(args.repeats):
                alone, _ = written_per_s(settings, args.seconds, 0)
                beside, answered = written_per_s(settings, args.seconds, READERS)
                shares.append(beside / alone)
                print(f"  alone {alone:6.1f} jobs/s, beside readers {beside:6.1f}, who get {answered:6.1f} replies/s")
            print(f"  share left to the writers: {statistics.median(shares):.2f} (goal {GOAL_SHARE:g})")
        finally:
            served.close()
            own.close()
            service.terminate()
            service.wait(30)


if __name__ == "__main__":
    main()
