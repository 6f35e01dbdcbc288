"""Dagster's pages and the sensors' ticks with a short history of runs and with a long one (needs Debian's chromium).

python -m benchmarks.long_history --runs 100000

The long history takes about 30 kB of disk per run, and a minute to write.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import psutil
from dagster._core.scheduler.instigation import InstigatorTick
from playwright.sync_api import Page, sync_playwright

from benchmarks.online_data import redis_server
from tests.featurestore_dagster.history import lengthen
from tests.featurestore_dagster.live.location import SEARCHES
from tests.featurestore_dagster.live.platform import Live, live_dagster

CHROMIUM = "/usr/bin/chromium"
GOAL_S = 3.0
SHORT = 100  # runs
LOOKS, BATCHES = 3, 5
PAGES = {
    "asset graph": "/asset-groups",
    "an asset": "/assets/features/last_click",
    "its hours": "/assets/features/last_click?view=partitions",
    "runs": "/runs",
    "backfills": "/runs?view=backfills",
}


def pages(page: Page) -> dict[str, float]:
    """From the call of a page until its last answer is there, the median of some looks, in seconds."""
    return {name: statistics.median(_loaded_s(page, path) for _ in range(LOOKS)) for name, path in PAGES.items()}


def _loaded_s(page: Page, path: str) -> float:
    answered = time.monotonic()

    def note(_request: object) -> None:
        nonlocal answered
        answered = time.monotonic()

    began = time.monotonic()
    page.on("requestfinished", note)
    page.goto(path, wait_until="networkidle")
    page.remove_listener("requestfinished", note)
    return answered - began


def ticks(live: Live) -> dict[str, float]:
    """Medians of the seconds that ticks took while batches landed."""
    began = time.time()
    for user in range(BATCHES):
        live.settle(live.land(user), live.land(user, source=SEARCHES))
    return {
        state.name: statistics.median(_took_s(tick) for tick in found)
        for state in live.instance.all_instigator_state()
        if (found := live.instance.get_ticks(state.instigator_origin_id, state.selector_id, after=began))
    }


def _took_s(tick: InstigatorTick) -> float:
    return (tick.end_timestamp or time.time()) - tick.timestamp


def report(what: str, short: Mapping[str, float], long: Mapping[str, float]) -> None:
    print(what)
    for name, short_s in short.items():
        if name in long:
            print(f"  {name:16} {short_s:6.2f} s  {long[name]:6.2f} s   ratio {long[name] / short_s:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        redis_server() as url,
        live_dagster(Path(directory), url, run_interval_s=0) as live,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]) as browser,
    ):
        page = browser.new_page(base_url=live.dagster_url)
        state = live.settings.dagster_home / "state"
        live.settle(live.land(1), live.land(1, source=SEARCHES))
        measured: list[tuple[dict[str, float], dict[str, float]]] = []
        for runs in (SHORT, args.runs):
            lengthen(state, runs - live.instance.get_runs_count(dg.RunsFilter()))
            pages(page)  # what a first look keeps for the next ones
            measured.append((ticks(live), pages(page)))
        megabytes = sum(file.stat().st_size for file in state.iterdir()) >> 20
    (short_ticks, short_pages), (long_ticks, long_pages) = measured
    print(f"{SHORT} and {args.runs:,} runs ({megabytes:,} MB); load average {psutil.getloadavg()[0]:.1f}")
    report(f"pages, until the last answer is there (goal {GOAL_S:g} s)", short_pages, long_pages)
    report("ticks", short_ticks, long_ticks)


if __name__ == "__main__":
    main()
