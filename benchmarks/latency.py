"""From a batch landed to its values in DuckDB and Redis, by phase, with forked runs and with stock ones.

python -m benchmarks.latency --batches 20
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import psutil

from benchmarks.online_data import redis_server
from featurestore.online.redis_store import RedisOnlineStore
from featurestore.online.values import Status
from tests.featurestore_dagster.live.location import LAST_CLICK
from tests.featurestore_dagster.live.platform import Live, live_dagster

GOALS_S = {"warm": (4.0, 7.0), "stock": (8.0, 12.0)}  # median, p95; on an idle machine
PHASES = ("sensor", "queue", "process start", "work")
LOOK_S = 0.05


@dataclass(frozen=True)
class Way:
    """One batch's way: its phases in seconds, and the whole."""

    phases: tuple[float, ...]
    total_s: float


class Cpu:
    """Counts the CPU seconds of processes and all their descendants, ended ones included."""

    def __init__(self, roots: Sequence[int]) -> None:
        self._roots = [psutil.Process(pid) for pid in roots]
        self._seen: dict[tuple[int, float], float] = {}
        self._stop = threading.Event()

    @contextmanager
    def counting(self) -> Iterator[None]:
        self.look()
        self._before = sum(self._seen.values())
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    @property
    def seconds(self) -> float:
        return sum(self._seen.values()) - self._before

    def look(self) -> None:
        for root in self._roots:
            for process in (root, *root.children(recursive=True)):
                try:
                    times = process.cpu_times()
                    self._seen[process.pid, process.create_time()] = times.user + times.system
                except psutil.NoSuchProcess:
                    continue

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_S):
            self.look()


def way_of(live: Live, online: RedisOnlineStore, user: int) -> Way:
    """Land a batch and follow it until its value is served and its run has ended."""
    landed = datetime.now(UTC)
    batch = live.land(user)
    while online.read("user", [str(user)], [LAST_CLICK["page"]], landed)[0]["page"].status is not Status.PRESENT:
        time.sleep(0.01)  # noqa: TID251  # the clock of the benchmark
    served_s = time.time() - landed.timestamp()
    live.settle(batch)
    run = next(run for run in live.instance.get_runs() if batch.batch_id in str(run.run_config))
    stats = live.instance.get_run_stats(run.run_id)
    times = (landed.timestamp(), stats.enqueued_time, stats.launch_time, stats.start_time, stats.end_time)
    known = [time or 0.0 for time in times]
    return Way(tuple(after - before for before, after in pairwise(known)), served_s)


def measure(launcher: str, batches: int) -> None:
    """Batches one after the other, and what each took."""
    with (
        tempfile.TemporaryDirectory() as directory,
        redis_server() as url,
        live_dagster(Path(directory), url, launcher=launcher, run_interval_s=0) as live,
    ):
        online = RedisOnlineStore(url)
        way_of(live, online, 0)  # the first run loads the zygote
        cpu, began = Cpu(live.processes), time.monotonic()
        with cpu.counting():
            ways = [way_of(live, online, user) for user in range(1, batches + 1)]
        took_s = time.monotonic() - began
        online.close()
    report(launcher, ways, cpu.seconds, took_s)


def report(launcher: str, ways: Sequence[Way], cpu_s: float, took_s: float) -> None:
    totals = sorted(way.total_s for way in ways)
    median_s, p95_s = statistics.median(totals), totals[min(len(totals) - 1, round(0.95 * len(totals)))]
    phases = ", ".join(
        f"{name} {statistics.median(way.phases[number] for way in ways):.2f}" for number, name in enumerate(PHASES)
    )
    goal = "goal {:g} and {:g}".format(*GOALS_S[launcher])
    print(f"{launcher:5}  landed → served: median {median_s:.2f} s, p95 {p95_s:.2f} s ({goal})")
    print(f"       medians by phase, s: {phases}")
    print(
        f"       CPU of all of Dagster and the database: {cpu_s / len(ways):.2f} s per run, in {took_s:.0f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--launcher", choices=("warm", "stock"), help="by default both")
    args = parser.parse_args()
    print(f"{args.batches} batches one after the other; load average {psutil.getloadavg()[0]:.1f}")
    for launcher in (args.launcher,) if args.launcher else ("warm", "stock"):
        measure(launcher, args.batches)


if __name__ == "__main__":
    main()
