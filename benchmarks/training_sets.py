"""Whole training sets from a lake of many rows: time and memory, and how they grow with the log and with the spine.

    python -m benchmarks.training_sets --rows 10000000 --spine 250000 --spine 500000 --spine 1000000 --plain
    python -m benchmarks.training_sets --rows 25000000 --rows 50000000 --rows 100000000 --data /somewhere/large
    python -m benchmarks.training_sets --rows 25000000 --spine 100000 --windows --data /somewhere/large

Each size runs in a process of its own. A lake is made once in `--data`, of files as moves to the lake write them (half
a million rows, sorted by entity), and is read again in later runs. `--plain` adds DuckDB's join of the same files.
With `--windows`, features are sums over all the time that there is, so that every row matters.

"Of linear" compares to the first size: twice the rows in twice the time (CPU) are 1.00.
"""

import argparse
import functools
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

import featurestore as fs
from benchmarks.pit_join import ASOF, EVENTS, FEATURES, PLAN, USER, VIEW, make_spine
from benchmarks.ratio import Result, Way, alone
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.database.jobs import LakeFile
from featurestore.offline.tables import schema_job, view_table
from featurestore.training.build import build
from featurestore.training.pit_plan import KnownAt, PitPlan, plan_reads

FILE_ROWS = 500_000
GROUP_ROWS = 65_536
MEMORY_MB = 4_096  # goal
DAY = "wide_v1/2026-01-01"  # of the lake: a log's files of a day
SINCE = datetime(2026, 1, 1, tzinfo=UTC)

SUMS = fs.FeatureView("wide", USER, EVENTS, [fs.Aggregation(name, "sum", name, windows=("60d",)) for name in FEATURES])
SUMS_PLAN = plan_reads(fs.Project((SUMS,)), [SUMS["f0_60d"], SUMS["f1_60d"]], KnownAt())


def make_lake(root: Path, rows: int, entities: int) -> None:
    """A file per half a million rows, in the order of their arrival; sorted as the lake's are."""
    values = ", ".join(f"(hash(i + {n} * 1000003) % 1000000) / 997.0 AS {name}" for n, name in enumerate(FEATURES))
    step = 30 * 86_400_000_000 / rows
    root.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect()
    for number in range(rows // FILE_ROWS):
        path = root / f"{number:06d}.parquet"
        if path.exists():
            continue
        temporary = path.with_suffix(".tmp")
        connection.sql(
            f"""
            COPY (
                SELECT 'u' || (hash(i * 7 + 1) % {entities}) AS entity_id, TIMESTAMP '2026-01-01'
                    + to_microseconds((i * {step} - hash(i) % 600000000)::BIGINT) AS event_timestamp,
                    TIMESTAMP '2026-01-01' + to_microseconds((i // 10000 * 10000 * {step})::BIGINT) AS created_at,
                    (i % 10000)::BIGINT AS sequence, (hash(i // 10000) % 4503599627370496)::BIGINT AS tie,
                    {number + 1}::BIGINT AS commit_seq, {values}
                FROM range({number * FILE_ROWS}, {(number + 1) * FILE_ROWS}) AS t(i)
                ORDER BY entity_id, event_timestamp, created_at, sequence, tie
            ) TO '{temporary}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {GROUP_ROWS})
            """
        )
        temporary.rename(path)


def open_lake(lake: Path, spine: Path) -> tuple[EmbeddedDatabase, pa.Table, list[str]]:
    database = EmbeddedDatabase(lake_dir=lake)
    database.ensure(schema_job(fs.Project((VIEW,))))
    paths = sorted((lake / DAY).glob("*.parquet"))
    files = [
        LakeFile(
            name=str(path.relative_to(lake)),
            kind="rows",
            row_count=FILE_ROWS,
            size_bytes=path.stat().st_size,
            digest="",
        )
        for path in paths
    ]
    database.adopt(view_table(VIEW), files, SINCE, active=True)
    return database, pq.read_table(spine), [str(path) for path in paths]


def run_build(plan: PitPlan, opened: tuple[EmbeddedDatabase, pa.Table, list[str]]) -> pa.Table:
    database, spine, paths = opened
    made = build(database, plan, spine, time="event_timestamp", time_zone="UTC", commit_seq=len(paths))
    return made.table


def run_plain(opened: tuple[EmbeddedDatabase, pa.Table, list[str]]) -> pa.Table:
    _, spine, paths = opened
    with duckdb.connect() as connection:
        connection.sql("SET enable_progress_bar = false")
        connection.register("spine", spine)
        connection.sql(f"CREATE VIEW log AS FROM read_parquet({paths})")
        return connection.sql(ASOF).to_arrow_table()


def measure(lake: Path, rows: int, spine: Path, *, plain: bool, windows: bool) -> Result:
    prepare = functools.partial(open_lake, lake, spine)
    run = functools.partial(run_build, SUMS_PLAN if windows else PLAN)
    mine = alone(Way(f"training set of {rows:,} rows", prepare, run))
    note = f"{mine.peak_mb / MEMORY_MB:.2f} of {MEMORY_MB} MB"
    if plain:
        theirs = alone(Way("plain", prepare, run_plain))
        note += (
            f"; plain join {theirs.seconds:.1f} s, {theirs.cpu_seconds:.1f} s CPU, {theirs.peak_mb:.0f} MB: "
            f"time {mine.seconds / theirs.seconds:.2f}, CPU {mine.cpu_seconds / theirs.cpu_seconds:.2f}"
        )
    print(f"  {mine.name:38} {mine.seconds:7.1f} s  {mine.cpu_seconds:7.1f} s CPU  {mine.peak_mb:6.0f} MB  {note}")
    return mine


def compare_growth(found: dict[tuple[int, int], Result]) -> None:
    """Print what each size costs, of what the first one costs per row of its log and spine."""
    (rows, spine), first = next(iter(found.items()))
    for (more_rows, more_spine), result in list(found.items())[1:]:
        for what, size, more in (("log", rows, more_rows), ("spine", spine, more_spine)):
            if more != size and (more_rows == rows or more_spine == spine):
                of_linear = result.cpu_seconds / first.cpu_seconds / (more / size)
                print(f"  {more / size:.1f} times the {what}: {of_linear:.2f} of linear")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, action="append")
    parser.add_argument("--spine", type=int, action="append")
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--windows", action="store_true")
    args = parser.parse_args()
    found: dict[tuple[int, int], Result] = {}
    with tempfile.TemporaryDirectory() as temporary:
        data = args.data or Path(temporary)
        for rows in args.rows or [10_000_000]:
            lake = data / f"lake{rows}"
            make_lake(lake / DAY, rows, args.entities)
            for size in args.spine or [1_000_000]:
                spine = Path(temporary) / f"spine{size}.parquet"
                make_spine(spine, size, args.entities)
                print(
                    f"{rows:,} rows x {len(FEATURES)} features, {args.entities:,} entities, spine {size:,}", flush=True
                )
                found[rows, size] = measure(lake, rows, spine, plain=args.plain, windows=args.windows)
    compare_growth(found)


if __name__ == "__main__":
    main()
