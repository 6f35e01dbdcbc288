"""Point-in-time join: the kernel against plain DuckDB formulations of the same join (newest by the total order).

python -m benchmarks.pit_join --rows 2000000 --spine 100000 --spine 1000000
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

FEATURES = [f"f{number}" for number in range(10)]
USER = fs.Entity("user", key="user_id")
EVENTS = fs.KafkaSource("events", timestamp="at", schema={"user_id": str, **dict.fromkeys(FEATURES, float)})
VIEW = fs.FeatureView("wide", USER, EVENTS, [fs.Feature(name, float) for name in FEATURES])
PLAN = plan_reads(fs.Project((VIEW,)), [VIEW], KnownAt())

DAYS = 30
ORDER = "row(l.event_timestamp, l.created_at, l.sequence, l.tie)"
LAST = "TIMESTAMP '9999-12-31', 9223372036854775807, 9223372036854775807"
VALUES = ", ".join(f"l.{name}" for name in FEATURES)
ASOF = f"""
    SELECT s.*, {VALUES} FROM spine AS s ASOF LEFT JOIN log AS l
    ON s.user_id = l.entity_id AND row(s.event_timestamp, {LAST}) >= {ORDER} ORDER BY s.number
"""
ARG_MAX = f"""
    WITH newest AS (
        SELECT s.number, arg_max(l.position, {ORDER}) AS position FROM spine AS s JOIN log AS l
        ON s.user_id = l.entity_id AND s.event_timestamp >= l.event_timestamp GROUP BY s.number
    )
    SELECT s.*, {VALUES} FROM spine AS s LEFT JOIN newest USING (number)
    LEFT JOIN log AS l ON l.position = newest.position ORDER BY s.number
"""


def make_log(path: Path, rows: int, entities: int) -> None:
    """Rows in the order of their arrival, up to ten minutes late, in batches of 10,000."""
    values = ", ".join(f"(hash(i + {n} * 1000003) % 1000000) / 997.0 AS {name}" for n, name in enumerate(FEATURES))
    step = DAYS * 86_400_000_000 / rows
    duckdb.sql(
        f"""
        COPY (
            SELECT 'u' || (hash(i * 7 + 1) % {entities}) AS entity_id,
                TIMESTAMP '2026-01-01' + to_microseconds((i * {step} - hash(i) % 600000000)::BIGINT) AS event_timestamp,
                TIMESTAMP '2026-01-01' + to_microseconds((i // 10000 * 10000 * {step})::BIGINT) AS created_at,
                (i % 10000)::BIGINT AS sequence, (hash(i // 10000) % 4503599627370496)::BIGINT AS tie,
                i::BIGINT AS position, {values}
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
    out = rows
    for target, name in PLAN.features:
        out = out.append_column(name, found[target, name])
    return out


def run_sql(sql: str, tables: tuple[pa.Table, pa.Table]) -> pa.Table:
    with duckdb.connect() as connection:
        connection.sql("SET enable_progress_bar = false")
        connection.register("log", tables[0])
        connection.register("spine", tables[1])
        return connection.sql(sql).to_arrow_table()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--spine", type=int, action="append")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log.parquet"
        make_log(log, args.rows, args.entities)
        for size in args.spine or [100_000, 1_000_000]:
            spine = Path(directory) / f"spine{size}.parquet"
            make_spine(spine, size, args.entities)
            prepare = functools.partial(load, log, spine)
            print(f"{args.rows:,} rows x {len(FEATURES)} features, {args.entities:,} entities, spine {size:,}")
            same = run_kernel(prepare()).equals(run_sql(ASOF, prepare()))
            print(f"  same result: {same}")
            compare(
                Way("kernel", prepare, run_kernel),
                [
                    Way("DuckDB ASOF on the order", prepare, functools.partial(run_sql, ASOF)),
                    Way("DuckDB arg_max of the row, then its values", prepare, functools.partial(run_sql, ARG_MAX)),
                ],
                repeats=args.repeats,
            )


if __name__ == "__main__":
    main()
