"""From a batch landed to its values in DuckDB and Redis, under a steady stream, with forked runs and with stock ones.

python -m benchmarks.latency --batches 40

Batches land at random moments, and whether or not those before them have been served: one that lands when the one
before it is served would always wait for a whole round of the daemon. Phases are those of the batch's run.
"""

import argparse
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import psutil

from benchmarks.cpu import Cpu
from benchmarks.online_data import redis_server
from featurestore.landing.batch import Batch
from featurestore.online.redis_store import RedisOnlineStore
from featurestore.online.values import Status
from tests.featurestore_dagster.live.location import LAST_CLICK
from tests.featurestore_dagster.live.platform import Live, live_dagster

GOALS_S = {"warm": (4.0, 7.0), "stock": (8.0, 12.0)}  # median, p95; on an idle machine
PHASES = ("sensor", "queue", "process start", "work")
GAP_S = (1.0, 4.0)  # between two batches


@dataclass(frozen=True)
class Way:
    """One batch's way: its phases in seconds, and the whole."""

    phases: tuple[float, ...]
    total_s: float


def ways_of(live: Live, online: RedisOnlineStore, users: Sequence[int], chance: random.Random) -> list[Way]:
    """Land a batch for each user, at moments that know nothing of Dagster's ticks, and follow each."""
    landed: dict[int, tuple[Batch, float]] = {}
    served_s: dict[int, float] = {}
    still_landing = threading.Event()
    still_landing.set()

    def land() -> None:
        for user in users:
            time.sleep(chance.uniform(*GAP_S))  # noqa: TID251  # the stream's own clock
            now = time.time()
            landed[user] = live.land(user), now
        still_landing.clear()

    stream = threading.Thread(target=land)
    stream.start()
    while still_landing.is_set() or len(served_s) < len(landed):
        waiting = [user for user in list(landed) if user not in served_s]
        read = online.read("user", [str(user) for user in waiting], [LAST_CLICK["page"]], datetime.now(UTC))
        now = time.time()
        served_s |= {
            user: now - landed[user][1]
            for user, row in zip(waiting, read, strict=True)
            if row["page"].status is Status.PRESENT
        }
        time.sleep(0.01)  # noqa: TID251  # the clock of the benchmark
    stream.join()
    live.settle(*(batch for batch, _ in landed.values()))
    return [Way(phases_of(live, *landed[user]), served_s[user]) for user in users]


def phases_of(live: Live, batch: Batch, landed: float) -> tuple[float, ...]:
    run = next(run for run in live.instance.get_runs() if batch.batch_id in str(run.run_config))
    stats = live.instance.get_run_stats(run.run_id)
    times = (landed, stats.enqueued_time, stats.launch_time, stats.start_time, stats.end_time)
    return tuple(after - before for before, after in pairwise(time or 0.0 for time in times))


def measure(launcher: str, batches: int) -> None:
    """A stream of batches, and what each took."""
    with (
        tempfile.TemporaryDirectory() as directory,
        redis_server() as url,
        live_dagster(Path(directory), url, launcher=launcher, run_interval_s=0) as live,
    ):
        online, chance = RedisOnlineStore(url), random.Random(launcher)
        ways_of(live, online, [0], chance)  # the first run loads the zygote
        before, cpu, began = (
            live.instance.get_runs_count(),
            Cpu({name: child.pid for name, child in live.children.items()}),
            time.monotonic(),
        )
        with cpu.counting():
            ways = ways_of(live, online, range(1, batches + 1), chance)
        took_s, runs = time.monotonic() - began, live.instance.get_runs_count() - before
        online.close()
    report(launcher, ways, sum(cpu.seconds.values()), runs, took_s)


def report(launcher: str, ways: Sequence[Way], cpu_s: float, runs: int, took_s: float) -> None:
    totals = sorted(way.total_s for way in ways)
    median_s, p95_s = statistics.median(totals), totals[min(len(totals) - 1, round(0.95 * len(totals)))]
    phases = ", ".join(
        f"{name} {statistics.median(way.phases[number] for way in ways):.2f}" for number, name in enumerate(PHASES)
    )
    goal = "goal {:g} and {:g}".format(*GOALS_S[launcher])
    print(f"{launcher:5}  landed → served: median {median_s:.2f} s, p95 {p95_s:.2f} s ({goal})")
    print(f"       medians by phase, s: {phases}")
    print(f"       CPU of all of Dagster and the database: {cpu_s / runs:.2f} s per run; {runs} runs in {took_s:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--launcher", choices=("warm", "stock"), help="by default both")
    args = parser.parse_args()
    print(
        f"{args.batches} batches, one every {GAP_S[0]:g} to {GAP_S[1]:g} s; load average {psutil.getloadavg()[0]:.1f}"
    )
    for launcher in (args.launcher,) if args.launcher else ("warm", "stock"):
        measure(launcher, args.batches)


if __name__ == "__main__":
    main()
