"""How fast a backlog of landed batches gets through sensor → run → log → Redis, and that none of it is forgotten.

python -m benchmarks.throughput --batches 2000 --rows 100

Dagster starts with the batches pending, with the settings that everybody has. The time is from the sensor's first tick
to the end of the last run; the lower bound is the same batches applied by one process, without Dagster and the database
service, to a DuckDB file and Redis.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks.online_data import redis_server
from featurestore.apply import apply_batches
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.database.tables import schema_job
from featurestore.landing.batch import Batch
from featurestore.landing.zone import LandingZone
from featurestore.online.redis_store import RedisOnlineStore
from featurestore_dagster.names import LANDED_SENSOR
from tests.featurestore_dagster.live.backlog import forgotten, landed
from tests.featurestore_dagster.live.location import PROJECT
from tests.featurestore_dagster.live.platform import Live, live_dagster

WITHIN_S = 1800.0  # after which a batch is forgotten
LOOK_S = 0.5


def drained_s(live: Live, batches: Sequence[Batch]) -> float:
    """From the first tick of the sensor until the last run has ended."""
    names = {batch.batch_id for batch in batches}
    deadline = time.monotonic() + WITHIN_S
    while (live.live() or not names <= set(live.applied())) and time.monotonic() < deadline:
        time.sleep(LOOK_S)  # noqa: TID251  # the clock of the benchmark is Dagster's
    [state] = [one for one in live.instance.all_instigator_state() if one.name == LANDED_SENSOR]
    began = min(tick.timestamp for tick in live.instance.get_ticks(state.instigator_origin_id, state.selector_id))
    ended = max(record.end_time or 0.0 for record in live.instance.get_run_records())
    return ended - began


def raw_s(directory: Path, redis_url: str, zone: LandingZone, batches: Sequence[Batch]) -> float:
    """The same batches through the same function, in this process alone."""
    database, online = EmbeddedDatabase(directory / "raw.duckdb"), RedisOnlineStore(redis_url, namespace="raw")
    database.ensure(schema_job(PROJECT))
    began = time.monotonic()
    for view in PROJECT.feature_views:
        apply_batches(view, [one for one in batches if one.source == view.source.name], zone, database, online)
    took_s = time.monotonic() - began
    database.close()
    online.close()
    return took_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=2_000)
    parser.add_argument("--rows", type=int, default=100, help="of a batch")
    parser.add_argument("--launcher", choices=("warm", "stock"), default="warm")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, redis_server() as url:
        directory = Path(temporary)
        zone = LandingZone(directory / "data" / "landing")
        batches = landed(zone, args.batches, args.rows)
        rows = sum(batch.rows for batch in batches)
        print(f"{len(batches):,} pending batches, {rows:,} rows; load average {psutil.getloadavg()[0]:.1f}")
        with live_dagster(directory, url, launcher=args.launcher) as live:
            took_s = drained_s(live, batches)
            runs = live.instance.get_runs_count()
            online = RedisOnlineStore(url)
            wrong = forgotten(live, online, batches)
            online.close()
        alone_s = raw_s(directory, url, zone, batches)
    for name, seconds in ((f"Dagster, {runs} runs", took_s), ("one process", alone_s)):
        print(f"  {name:20} {seconds:7.1f} s  {len(batches) / seconds:9.0f} batches/s  {rows / seconds:11,.0f} rows/s")
    print(f"  ratio: {took_s / alone_s:.1f}")
    if wrong:
        sys.exit("\n".join(["forgotten:", *wrong]))
    print("  every batch is in the ledger, every row in the log and in Redis, once")


if __name__ == "__main__":
    main()
