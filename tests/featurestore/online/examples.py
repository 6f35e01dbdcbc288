"""Views and rows that the tests of the online store share."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pyarrow as pa

import featurestore as fs
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.database.jobs import AppendJob, LedgerLine
from featurestore.database.tables import ARROW_TYPES, QUARANTINE
from featurestore.definitions.dtypes import arrow_type
from featurestore.offline.tables import schema_job
from featurestore.offline.tiles import touched_tiles
from featurestore.order import Order, tie

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = 1_000_000
NOW_US = (NOW - EPOCH) // timedelta(microseconds=1)

_BATCHES = count()  # their names, for threads too

USER = fs.Entity("user", key="user_id")
EVENTS = fs.KafkaSource(
    "events",
    timestamp="timestamp",
    schema={"user_id": int, "score": float | None, "clicks": int | None, "is_new": bool | None, "city": str | None},
)


def view(*online: str, version: int = 1, max_age: str | None = None) -> fs.FeatureView:
    """A view with a feature of each type, those in `online` (default all) online."""
    columns = {"score": float, "clicks": int, "is_new": bool, "city": str}
    return fs.FeatureView(
        "activity",
        USER,
        EVENTS,
        [fs.Feature(n, t, online=n in (online or columns), max_age=max_age) for n, t in columns.items()],
        version=version,
    )


ACTIVITY = view()
FEATURES = tuple(ACTIVITY[feature.name] for feature in ACTIVITY.online_features)


def visits_view(*online: str, windows: tuple[str, ...] = ("24s", "2m")) -> fs.FeatureView:
    """A view with windows, those in `online` (default all) online, and a row feature."""
    return fs.FeatureView(
        "visits",
        USER,
        EVENTS,
        [
            fs.Feature("last_score", float, "score", online=not online),
            fs.Aggregation("visits", "count", windows=windows, online=not online or "visits" in online),
            fs.Aggregation("best", "max", "score", windows=windows[-1:], online=not online or "best" in online),
        ],
    )


VISITS = visits_view()


def order(event: float = 0, created: float = 0, sequence: int = 0, batch: str = "b") -> Order:
    """A row's place, in seconds from NOW."""
    return Order(int(NOW_US + event * SECOND), int(NOW_US + created * SECOND), sequence, tie(batch))


def row(entity_id: str, place: Order, **values: object) -> dict[str, object]:
    """A row of any view of these; a visit of `score`."""
    empty = dict.fromkeys(("score", "clicks", "is_new", "city"))
    head = {name: getattr(place, name) for name in ("event_timestamp", "created_at", "sequence", "tie")}
    visit = {"last_score": values.get("score"), "visits": True, "best": values.get("score")}
    return {"entity_id": entity_id, **head, **empty, **visit, **values}


def table(rows: Sequence[Mapping[str, object]], of: fs.FeatureView = ACTIVITY) -> pa.Table:
    """Rows as the log has them."""
    micros = pa.timestamp("us")
    head: list[tuple[str, pa.DataType]] = [
        ("entity_id", pa.string()),
        ("event_timestamp", micros),
        ("created_at", micros),
        ("sequence", pa.int64()),
        ("tie", pa.int64()),
    ]
    fields: list[Any] = [*head, *((column.name, arrow_type(column.dtype)) for column in of.columns)]
    return pa.Table.from_pylist([dict(one) for one in rows], schema=pa.schema(fields))


def append(database: EmbeddedDatabase, of: fs.FeatureView, rows: pa.Table) -> tuple[int, ...]:
    """Log rows of a view as one batch; returns its commit_seq."""
    database.ensure(schema_job(fs.Project((of,))))
    line = LedgerLine(
        batch_id=f"events/{next(_BATCHES)}",
        target=of.target,
        code_digest=of.digest,
        rows_in=rows.num_rows,
        logged=rows.num_rows,
        filtered=0,
        quarantined=0,
    )
    numbered = rows.append_column("line", pa.repeat(pa.scalar(0, pa.int32()), rows.num_rows))
    types = {name: ARROW_TYPES[dtype] for name, dtype in QUARANTINE.items()} | {"line": pa.int32()}
    nothing = pa.schema(types).empty_table()
    return tuple(database.append(AppendJob(line.batch_id, of.target, (line,), numbered, nothing)).commit_seqs)


def tiles_of(of: fs.FeatureView, rows: pa.Table) -> pa.Table:
    """The tiles of a log that holds these rows alone."""
    database = EmbeddedDatabase()
    tiles = pa.concat_tables(touched_tiles(database, of, rows, append(database, of, rows)))
    database.close()
    return tiles
