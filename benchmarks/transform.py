"""A batch through a view: 100,000 rows, five SQL features, against the bare DuckDB query and a Parquet write.

    python -m benchmarks.transform

Goal: at most twice the bare query plus write, the rows' head, expectation and accounting included.
"""

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import featurestore as fs
from benchmarks.ratio import Way, compare
from featurestore.landing.batch import Batch
from featurestore.landing.schema import landed_schema
from featurestore.transform.rows import feature_rows

ROWS = 100_000
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)

USER = fs.Entity("user", key="user_id")
EVENTS = fs.KafkaSource(
    "events", timestamp="at", schema={"user_id": int, "action": str, "amount": float, "cost": float}
)
SQL = {
    "ratio": (float, "cost / nullif(amount, 0)"),
    "margin": (float, "amount - cost"),
    "last_action": (str, "upper(action)"),
    "bought": (bool, "action = 'purchase'"),
    "cents": (int, "CAST(round(amount * 100) AS BIGINT)"),
}
VIEW = fs.FeatureView(
    "activity",
    USER,
    EVENTS,
    [fs.Feature(name, dtype, sql) for name, (dtype, sql) in SQL.items()],
    expect=[fs.Expectation("amount >= 0")],
)


@dataclass(frozen=True)
class Landed:
    """The rows of a batch, and where results go."""

    table: pa.Table
    batch: Batch
    file: Path


def prepare() -> Landed:
    dice = np.random.default_rng(0)
    start = int(NOON.timestamp() * 1e6)
    columns = {
        "sequence": np.arange(ROWS),
        "event_timestamp": start + np.arange(ROWS),
        "user_id": dice.integers(0, 10_000, ROWS),
        "action": dice.choice(["click", "view", "purchase"], ROWS),
        "amount": dice.random(ROWS) * 100,
        "cost": dice.random(ROWS) * 100,
    }
    table = pa.Table.from_pydict(columns).cast(landed_schema(EVENTS))
    batch = Batch(
        batch_id="events/gen=c.t/partition=0/00000000000000000000.parquet",
        source="events",
        start=0,
        end=ROWS,
        rows=ROWS,
        created_at=NOON,
        schema_version=EVENTS.schema_version,
        digest="",
        bytes=table.nbytes,
    )
    return Landed(table, batch, Path(tempfile.mkdtemp()) / "rows.parquet")


def ours(landed: Landed) -> None:
    made = feature_rows(VIEW, landed.table, landed.batch)
    assert made.rows.num_rows == ROWS
    pq.write_table(made.rows, landed.file, compression="zstd", compression_level=1)


def bare(landed: Landed) -> None:
    columns = ", ".join(f"{sql} AS {name}" for name, (_, sql) in SQL.items())
    with duckdb.connect() as connection:
        connection.register("rows", landed.table)
        rows = connection.sql(f"SELECT user_id, event_timestamp, sequence, {columns} FROM rows").to_arrow_table()
    pq.write_table(rows, landed.file, compression="zstd", compression_level=1)


def main() -> None:
    print(f"{ROWS:,} rows, {len(SQL)} SQL features, one expectation")
    compare(Way("feature_rows + Parquet", prepare, ours), [Way("bare query + Parquet", prepare, bare)], repeats=9)


if __name__ == "__main__":
    main()
