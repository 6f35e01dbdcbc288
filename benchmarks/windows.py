"""Window features: the kernel against a plain DuckDB join with filtered aggregates.

    python -m benchmarks.windows --rows 3000000 --spine 100000

The plain sums add in whatever order threads find the rows: repeated, they differ in their last bits. The second plain
query has them in order (without the tiles), which is what a reproducible training set needs at least.
"""

import argparse
import functools
import tempfile
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

import featurestore as fs
from benchmarks.ratio import Way, compare
from featurestore.training.kernel import join
from featurestore.training.pit_plan import KnownAt, plan_reads
from featurestore.training.spine import read_spine

WINDOWS = ("1h", "1d", "7d")
USER = fs.Entity("user", key="user_id")
EVENTS = fs.KafkaSource("events", timestamp="at", schema={"user_id": str, "action": str, "amount": float})
VIEW = fs.FeatureView(
    "activity",
    USER,
    EVENTS,
    [
        fs.Aggregation("clicks", "count", where="action = 'click'", windows=WINDOWS),
        fs.Aggregation("spend", "sum", "amount", windows=WINDOWS),
    ],
)
PLAN = plan_reads(fs.Project((VIEW,)), [VIEW], KnownAt())
DAYS = 30
ORDER = "l.event_timestamp, l.created_at, l.sequence, l.tie"


def plain_sql(order: str) -> str:
    """One join over the longest window; each window filters."""
    starts, folds = [], []
    for text, window in zip(WINDOWS, (one.window for one in PLAN.views[0].windows[:3]), strict=True):
        starts.append(
            f"time_bucket(to_microseconds({window.hop_us}), event_timestamp - to_microseconds({window.length_us}), "
            f"TIMESTAMP '1970-01-01') AS from_{text}"
        )
        folds.append(f"count(l.clicks) FILTER (l.event_timestamp > s.from_{text}) AS clicks_{text}")
        folds.append(f"sum(l.spend {order}) FILTER (l.event_timestamp > s.from_{text}) AS spend_{text}")
    return f"""
        WITH s AS (SELECT *, {", ".join(starts)} FROM spine)
        SELECT s.number, {", ".join(folds)} FROM s LEFT JOIN log AS l
        ON s.user_id = l.entity_id AND l.event_timestamp <= s.event_timestamp AND l.event_timestamp > s.from_7d
        GROUP BY s.number ORDER BY s.number
    """


PLAIN, ORDERED = plain_sql(""), plain_sql(f"ORDER BY {ORDER}")


def make_log(path: Path, rows: int, entities: int) -> None:
    """Rows in the order of their arrival, up to ten minutes late, in batches of 10,000."""
    step = DAYS * 86_400_000_000 / rows
    duckdb.sql(
        f"""
        COPY (
            SELECT 'u' || (hash(i * 7 + 1) % {entities}) AS entity_id,
                TIMESTAMP '2026-01-01' + to_microseconds((i * {step} - hash(i) % 600000000)::BIGINT) AS event_timestamp,
                TIMESTAMP '2026-01-01' + to_microseconds((i // 10000 * 10000 * {step})::BIGINT) AS created_at,
                (i % 10000)::BIGINT AS sequence, (hash(i // 10000) % 4503599627370496)::BIGINT AS tie,
                CASE WHEN hash(i * 5) % 3 = 0 THEN true END AS clicks, (hash(i + 7) % 1000000) / 997.0 AS spend
            FROM range({rows}) AS t(i)
        ) TO '{path}' (FORMAT parquet, COMPRESSION zstd)
        """
    )


def make_spine(path: Path, rows: int, entities: int) -> None:
    duckdb.sql(
        f"""
        COPY (
            SELECT i::BIGINT AS number, 'u' || (hash(i * 13 + 5) % {entities}) AS user_id, TIMESTAMP '2026-01-01'
                + to_microseconds((hash(i * 3) % {DAYS * 86_400_000_000})::BIGINT) AS event_timestamp
            FROM range({rows}) AS t(i)
        ) TO '{path}' (FORMAT parquet)
        """
    )


def load(log: Path, spine: Path) -> tuple[pa.Table, pa.Table]:
    return pq.read_table(log), pq.read_table(spine)


def run_kernel(tables: tuple[pa.Table, pa.Table]) -> pa.Table:
    log, rows = tables
    spine = read_spine(rows, PLAN.keys, time_zone="UTC")
    found = join(PLAN, spine, {VIEW.target: log}, lambda *_: None)
    return pa.table({"number": rows["number"], **{name: found[target, name] for target, name in PLAN.features}})


def run_sql(sql: str, tables: tuple[pa.Table, pa.Table]) -> pa.Table:
    with duckdb.connect() as connection:
        connection.sql("SET enable_progress_bar = false")
        connection.register("log", tables[0])
        connection.register("spine", tables[1])
        return connection.sql(sql).to_arrow_table()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--spine", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        log, spine = Path(directory) / "log.parquet", Path(directory) / "spine.parquet"
        make_log(log, args.rows, args.entities)
        make_spine(spine, args.spine, args.entities)
        prepare = functools.partial(load, log, spine)
        print(f"{args.rows:,} events, {args.entities:,} entities, spine {args.spine:,}, windows {', '.join(WINDOWS)}")
        mine, plain = run_kernel(prepare()), run_sql(PLAIN, prepare())
        names = [f"clicks_{text}" for text in WINDOWS]
        print(f"  same counts: {mine.select(names).equals(plain.select(names))}")
        ways = [Way("DuckDB, sums in any order", prepare, functools.partial(run_sql, PLAIN))]
        compare(Way("kernel", prepare, run_kernel), ways, repeats=args.repeats)
        ways = [Way("DuckDB, sums in the total order", prepare, functools.partial(run_sql, ORDERED))]
        compare(Way("kernel", prepare, run_kernel), ways, repeats=args.repeats)


if __name__ == "__main__":
    main()
