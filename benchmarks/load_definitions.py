"""Loading a code location of 200 views, against importing Dagster alone.

    python -m benchmarks.load_definitions

Goal: at most 1.5 times the import. How much of it is Dagster's own shows a code location of as many assets, checks,
partitions and dependencies that do nothing; and what checking SQL costs at least, DuckDB imported and connected. Each
try is a fresh process, and they take turns.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VIEWS, FEATURES, SOURCES = 200, 5, 10
TRIES = 5
BARE = "import dagster"
DUCKDB = "import dagster, duckdb; duckdb.connect()"
PLAIN = f"""
import dagster as dg

HOURS = dg.HourlyPartitionsDefinition(start_date="2026-01-01-00:00", end_offset=1)
CHECKS = ("accounting", "completeness", "future_rows", "parity")

def view(n):
    log, online = f"features_{{n}}", f"online_{{n}}"

    @dg.multi_asset(
        name=f"view_{{n}}",
        specs=[
            dg.AssetSpec(log, deps=[f"raw_{{n % {SOURCES}}}"], partitions_def=HOURS),
            dg.AssetSpec(online, deps=[log], partitions_def=HOURS),
        ],
        check_specs=[dg.AssetCheckSpec("expectations", asset=log)],
        can_subset=True,
    )
    def nothing(context: dg.AssetExecutionContext): ...
    return nothing

@dg.multi_asset(specs=[dg.AssetSpec(f"lake_{{n}}", deps=[f"features_{{n}}"]) for n in range({VIEWS})], can_subset=True)
def lake(context: dg.AssetExecutionContext): ...

@dg.multi_asset_check(
    specs=[dg.AssetCheckSpec(name, asset=f"features_{{n}}") for n in range({VIEWS}) for name in CHECKS], can_subset=True
)
def checks(context: dg.AssetCheckExecutionContext): ...

defs = dg.Definitions([*(view(n) for n in range({VIEWS})), lake], asset_checks=[checks])
"""
OURS = f"""
import dagster as dg
import featurestore as fs
from featurestore.settings import Settings
from featurestore_dagster.build import build_definitions

USER = fs.Entity("user", key="user_id")
SOURCES = [
    fs.KafkaSource(f"source_{{n}}", timestamp="at", schema={{"user_id": int, "a": float, "b": float}})
    for n in range({SOURCES})
]
VIEWS = tuple(
    fs.FeatureView(
        f"view_{{n}}",
        USER,
        SOURCES[n % {SOURCES}],
        [fs.Feature(f"f_{{n}}_{{k}}", float, f"a * {{n}} + b / {{k + 1}}", online=k == 0) for k in range({FEATURES})],
        expect=[fs.Expectation("a >= 0")],
    )
    for n in range({VIEWS})
)
defs = build_definitions(fs.Project(VIEWS), Settings())
"""


def seconds(code: str, directory: str) -> tuple[float, float]:
    """Wall and CPU seconds of a fresh process."""
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=directory)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, cpu


def main() -> None:
    print(f"{VIEWS} views of {FEATURES} features, {SOURCES} sources")
    with tempfile.TemporaryDirectory() as directory:
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])  # noqa: TID251  # of the processes that are measured
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # noqa: TID251  # all is compiled once, as what pip installs
        seconds(OURS, directory)
        taken = [[seconds(code, directory) for code in (BARE, DUCKDB, PLAIN, OURS)] for _ in range(TRIES)]
    for index, what in enumerate(("time", "CPU")):
        bare, duckdb, plain, ours = (statistics.median(one[way][index] for one in taken) for way in range(4))
        print(f"  {what}: import dagster {bare:.2f} s, the code location {ours:.2f} s, ratio {ours / bare:.2f}")
        print(f"  {' ' * len(what)}  as many assets and checks that do nothing {plain:.2f} s, ratio {plain / bare:.2f}")
        print(f"  {' ' * len(what)}  DuckDB imported and connected too {duckdb:.2f} s, ratio {duckdb / bare:.2f}")


if __name__ == "__main__":
    main()
