"""Queries through the database service: what the queue costs a small one, and what readers leave to the writers.

python -m benchmarks.database_read --seconds 5
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier, Event
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
PROCESSES = multiprocessing.get_context("forkserver")

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


def work(settings: Settings, writes: bool, begin: Barrier, over: Event, done: SimpleQueue[int]) -> None:
    """One client, a process of its own: how often it was answered."""
    database, table, number = QueueDatabase.of(settings), rows(JOB_ROWS, 0), 0
    begin.wait()
    while not over.is_set():
        if writes:
            database.append(job(table, f"{os.getpid()}-{number}"))
        else:
            database.query_arrow(NEWEST, {"id": str(number)})
        number += 1
    done.put(number)
    database.close()


def answered_per_s(settings: Settings, seconds: float, readers: int) -> tuple[float, float]:
    """Jobs written and queries answered a second, with so many readers beside the writers."""
    begin, over = PROCESSES.Barrier(WRITERS + readers + 1), PROCESSES.Event()
    kinds = {True: WRITERS, False: readers}
    counts = {writes: PROCESSES.SimpleQueue() for writes in kinds}
    clients = [
        PROCESSES.Process(target=work, args=(settings, writes, begin, over, counts[writes]))
        for writes, count in kinds.items()
        for _ in range(count)
    ]
    for one in clients:
        one.start()
    begin.wait()
    over.wait(seconds)
    over.set()
    for one in clients:
        one.join()
    written, read = (sum(counts[writes].get() for _ in range(count)) for writes, count in kinds.items())
    return written / seconds, read / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    PROCESSES.set_forkserver_preload(["benchmarks.database_write"])
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
                alone, _ = answered_per_s(settings, args.seconds, 0)
                beside, answered = answered_per_s(settings, args.seconds, READERS)
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
