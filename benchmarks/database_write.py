"""Write jobs through the database service against the same rows inserted into a file of one's own (INSERT … SELECT).

Small and middle jobs against rows in memory, large ones, whose rows go through files, against rows in Parquet files.
Both go on with one file, and have their checkpoints in it.
CPU time is that of all processes that have a part in it, Redis left out.

python -m benchmarks.database_write --rows 400000
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.online_data import redis_server
from featurestore.database.client import QueueDatabase
from featurestore.database.jobs import AppendJob, LedgerLine
from featurestore.database.tables import create_hot_table, view_table
from tests.featurestore.database.examples import ACTIVITY, ROWS, quarantine
from tests.featurestore.database.serving import process, settings_for

GOALS = {1_000: 0.25, 10_000: 0.5, 100_000: 0.8}
IN_FILES = 100_000
EPOCH_US = 1_767_225_600_000_000  # 2026-01-01


def rows(count: int, first: int) -> pa.Table:
    """Rows of one batch, an event a millisecond."""
    dice = np.random.default_rng(first)
    numbers = np.arange(first, first + count)
    times = pa.array(EPOCH_US + numbers * 1_000).view(pa.timestamp("us"))
    values = {
        "entity_id": pa.array(dice.integers(0, 100_000, count)).cast(pa.string()),
        "event_timestamp": times,
        "created_at": times,
        "sequence": pa.array(numbers),
        "tie": pa.array(np.full(count, first)),
        "last_action": pa.array(["click", "view", "buy"]).take(pa.array(dice.integers(0, 3, count))),
        "amount": pa.array(dice.random(count)),
        "steps": pa.array(dice.integers(0, 1000, count)),
        "bought": pa.array(dice.random(count) < 0.1),
        "spend": pa.array(dice.random(count)),
        "line": pa.array(np.zeros(count, np.int32)),
    }
    return pa.table(values, schema=ROWS)


def job(table: pa.Table, name: str) -> AppendJob:
    lines = (LedgerLine(name, ACTIVITY.target, ACTIVITY.digest, table.num_rows, table.num_rows, 0, 0),)
    return AppendJob(name, ACTIVITY.target, lines, table, quarantine())


@dataclass
class Spent:
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @contextmanager
    def measured(self, *others: psutil.Process) -> Generator[None]:
        """Add what is spent inside, by this process and others."""

        def cpu() -> float:
            return time.process_time() + sum(sum(other.cpu_times()[:2]) for other in others)

        began, cpu_began = time.perf_counter(), cpu()
        yield
        self.seconds += time.perf_counter() - began
        self.cpu_seconds += cpu() - cpu_began


def direct(home: Path, connection: duckdb.DuckDBPyConnection, tables: Sequence[pa.Table]) -> Spent:
    """Insert the tables, a transaction each."""
    insert = "INSERT INTO hot.activity_v1 BY NAME SELECT * EXCLUDE (line), $seq AS commit_seq FROM "
    path = home / "incoming.parquet"
    spent = Spent()
    for number, table in enumerate(tables):
        if table.num_rows >= IN_FILES:
            pq.write_table(table, path)
        else:
            connection.register("incoming", table)
        with spent.measured():
            connection.execute(insert + (f"'{path}'" if table.num_rows >= IN_FILES else "incoming"), {"seq": number})
    return spent


def served(database: QueueDatabase, service: psutil.Process, jobs: Sequence[AppendJob], producers: int) -> Spent:
    spent = Spent()
    with spent.measured(service), ThreadPoolExecutor(producers) as pool:
        list(pool.map(database.append, jobs))
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--producers", type=int, nargs="*", default=[1, 4])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, redis_server() as url:
        home = Path(directory)
        settings = settings_for(home / "data", url)
        service, database = process(settings), QueueDatabase.of(settings)
        try:
            for size, goal in GOALS.items():
                tables = [rows(size, first) for first in range(0, args.rows, size)]
                for producers in args.producers:
                    compare(home, database, psutil.Process(service.pid), tables, producers, goal, args.repeats)
        finally:
            database.close()
            service.terminate()
            service.wait(30)


def compare(
    home: Path,
    database: QueueDatabase,
    service: psutil.Process,
    tables: Sequence[pa.Table],
    producers: int,
    goal: float,
    repeats: int,
) -> None:
    taken: list[tuple[Spent, Spent]] = []
    with duckdb.connect(home / f"{time.time_ns()}.duckdb", config={"threads": 2}) as connection:
        connection.execute("CREATE SCHEMA hot")
        connection.execute(create_hot_table(view_table(ACTIVITY)))
        for _ in range(repeats + 1):
            jobs = [job(table, f"{time.time_ns()}-{number}") for number, table in enumerate(tables)]
            taken.append((served(database, service, jobs, producers), direct(home, connection, tables)))
    ours, theirs = zip(*taken[1:], strict=True)  # the first warms up; of the others the mean, a checkpoint is in some
    ours_s, theirs_s = (statistics.fmean(one.seconds for one in way) for way in (ours, theirs))
    ours_ms, theirs_ms = (
        statistics.fmean(one.cpu_seconds for one in way) / len(tables) * 1e3 for way in (ours, theirs)
    )
    total = sum(table.num_rows for table in tables)
    print(
        f"{len(tables)} jobs of {tables[0].num_rows} rows, {producers} at once: {total / ours_s:9.0f} rows/s, "
        f"direct {total / theirs_s:9.0f} rows/s, ratio {theirs_s / ours_s:.2f} (goal {goal}); "
        f"{ours_ms:.1f} ms CPU a job, direct {theirs_ms:.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
