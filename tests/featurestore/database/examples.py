"""A view with every type, and write jobs for it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pyarrow as pa

import featurestore as fs
from featurestore.database.jobs import AppendJob, LedgerLine, SchemaJob
from featurestore.database.tables import ARROW_TYPES, HEAD_TYPES, QUARANTINE, view_table
from featurestore.order import tie

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)

USER = fs.Entity("user", key="user_id")
EVENTS = fs.KafkaSource("events", timestamp="at", schema={"user_id": int, "action": str, "amount": float, "steps": int})
ACTIVITY = fs.FeatureView(
    "activity",
    USER,
    EVENTS,
    [
        fs.Feature("last_action", str, "action", online=True),
        fs.Feature("amount", float),
        fs.Feature("steps", int, online=True),
        fs.Feature("bought", bool, "action = 'buy'"),
        fs.Aggregation("spend", "sum", "amount", windows=("1h",)),
    ],
)
LARGEST = fs.Query("largest", "SELECT max(steps) AS steps FROM log.activity_v1 WHERE entity_id = $entity_id")
PROJECT = fs.Project(views=(ACTIVITY,), queries=(LARGEST,))
SCHEMA = SchemaJob("schema", (view_table(ACTIVITY),))

_TYPES = {**HEAD_TYPES, "last_action": "VARCHAR", "amount": "DOUBLE", "steps": "BIGINT", "bought": "BOOLEAN"}
ROWS = pa.schema(
    [(name, ARROW_TYPES[dtype]) for name, dtype in (_TYPES | {"spend": "DOUBLE"}).items()] + [("line", pa.int32())]
)
QUARANTINED = pa.schema([(name, ARROW_TYPES[dtype]) for name, dtype in QUARANTINE.items()] + [("line", pa.int32())])


def row(batch_id: str, sequence: int, line: int = 0, **values: object) -> dict[str, object]:
    """A row of a batch: an event a second, of one user in ten."""
    at = (NOON + timedelta(seconds=sequence)).replace(tzinfo=None)
    return {
        "entity_id": str(sequence % 10),
        "event_timestamp": at,
        "created_at": at,
        "sequence": sequence,
        "tie": tie(batch_id),
        "last_action": "click",
        "amount": sequence / 4,
        "steps": sequence,
        "bought": False,
        "spend": sequence / 4,
        "line": line,
        **values,
    }


def table(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=ROWS)


def held(line: int = 0, **values: object) -> dict[str, object]:
    """A quarantined row."""
    return {"sequence": 0, "event_timestamp": None, "reason": "amount >= 0", "row": "{}", "line": line, **values}


def quarantine(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=QUARANTINED)


def line(batch_id: str, logged: int, *, filtered: int = 0, quarantined: int = 0, **values: str) -> LedgerLine:
    digest = values.get("digest", ACTIVITY.digest)
    total = logged + filtered + quarantined
    return LedgerLine(batch_id, values.get("target", ACTIVITY.target), digest, total, logged, filtered, quarantined)


def job(*batches: tuple[str, int], job_id: str = "job", rows: pa.Table | None = None) -> AppendJob:
    """An append of batches of so many rows."""
    lines = tuple(line(batch_id, count) for batch_id, count in batches)
    made = [row(batch, number, index) for index, (batch, count) in enumerate(batches) for number in range(count)]
    return AppendJob(job_id, ACTIVITY.target, lines, rows if rows is not None else table(*made), quarantine())


def batches_of(jobs: Sequence[AppendJob]) -> list[str]:
    return [one.batch_id for job in jobs for one in job.lines]
