"""Views and rows that the tests of the online store share."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

import featurestore as fs
from featurestore.definitions.dtypes import arrow_type
from featurestore.order import Order, tie

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = 1_000_000
NOW_US = (NOW - EPOCH) // timedelta(microseconds=1)

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


def order(event: int = 0, created: int = 0, sequence: int = 0, batch: str = "b") -> Order:
    """A row's place, in seconds from NOW."""
    return Order(NOW_US + event * SECOND, NOW_US + created * SECOND, sequence, tie(batch))


def row(entity_id: str, place: Order, **values: object) -> dict[str, object]:
    empty = dict.fromkeys(("score", "clicks", "is_new", "city"))
    head = {name: getattr(place, name) for name in ("event_timestamp", "created_at", "sequence", "tie")}
    return {"entity_id": entity_id, **head, **empty, **values}


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
