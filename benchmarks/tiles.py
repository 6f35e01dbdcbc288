"""Tiles of windows made anew after a batch, against the append of the batch itself.

    python -m benchmarks.tiles --rows 3000000 --batch 10000

The log is a file on disk, filled with events of 30 days in the order of their arrival; then batches arrive as a stream
would bring them, up to ten minutes late.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import featurestore as fs
from benchmarks.windows import EVENTS, USER, make_log
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.database.jobs import AppendJob, LedgerLine
from featurestore.database.tables import ARROW_TYPES, QUARANTINE
from featurestore.offline.tables import schema_job
from featurestore.offline.tiles import touched_tiles

WINDOWS = ("1h", "1d", "7d")
VIEW = fs.FeatureView(
    "activity",
    USER,
    EVENTS,
    [
        fs.Aggregation("clicks", "count", where="action = 'click'", windows=WINDOWS, online=True),
        fs.Aggregation("spend", "sum", "amount", windows=WINDOWS, online=True),
    ],
)
GOAL = 3.0
NOTHING = pa.schema({**{n: ARROW_TYPES[t] for n, t in QUARANTINE.items()}, "line": pa.int32()}).empty_table()


def append(database: EmbeddedDatabase, number: int, rows: pa.Table) -> tuple[int, ...]:
    line = LedgerLine(
        batch_id=f"events/{number}",
        target=VIEW.target,
        code_digest=VIEW.digest,
        rows_in=rows.num_rows,
        logged=rows.num_rows,
        filtered=0,
        quarantined=0,
    )
    numbered = rows.append_column("line", pa.repeat(pa.scalar(0, pa.int32()), rows.num_rows))
    return tuple(database.append(AppendJob(line.batch_id, VIEW.target, (line,), numbered, NOTHING)).commit_seqs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=10_000)
    parser.add_argument("--batches", type=int, default=15)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "log.parquet"
        make_log(path, args.rows + args.batch * args.batches, args.entities)
        log = pq.read_table(path)
        database = EmbeddedDatabase(Path(directory) / "features.duckdb")
        database.ensure(schema_job(fs.Project((VIEW,))))
        for number, start in enumerate(range(0, args.rows, 200_000)):
            append(database, number, log.slice(start, min(200_000, args.rows - start)))
        taken: dict[str, list[float]] = {"append": [], "tiles": []}
        tiles = 0
        for number in range(args.batches):
            rows = log.slice(args.rows + number * args.batch, args.batch).combine_chunks()
            began = time.perf_counter()
            commit_seqs = append(database, 1_000 + number, rows)
            appended = time.perf_counter()
            tiles = sum(part.num_rows for part in touched_tiles(database, VIEW, rows, commit_seqs))
            taken["append"].append(appended - began)
            taken["tiles"].append(time.perf_counter() - appended)
        database.close()
    found = {name: 1_000 * statistics.median(times) for name, times in taken.items()}
    print(f"{args.rows:,} events, {args.entities:,} entities, batches of {args.batch:,}, windows {', '.join(WINDOWS)}")
    print(f"  append {found['append']:8.1f} ms, tiles {found['tiles']:8.1f} ms ({tiles:,} of them)")
    print(f"  ratio {found['tiles'] / found['append']:.2f} (goal {GOAL})")


if __name__ == "__main__":
    main()
