"""A training set over the database service has the bytes of one over the embedded database."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

import featurestore as fs
from featurestore.database.client import Database
from featurestore.database.jobs import AppendJob, AppendReply, SchemaJob
from featurestore.database.tables import schema_job
from featurestore.offline import snapshot
from featurestore.online.memory import MemoryOnlineStore
from featurestore.store import Store
from featurestore.testing.memory import MemoryStore
from tests.featurestore.database.serving import client, on_a_thread, settings_for

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)

USER = fs.Entity("user", key="user_id")
EVENTS = fs.KafkaSource("events", timestamp="at", schema={"user_id": int, "x": float | None, "s": str | None})
VIEW = fs.FeatureView(
    "view",
    USER,
    EVENTS,
    [
        fs.Feature("x", float),
        fs.Feature("s", str, max_age="1m"),
        *(
            fs.Aggregation(f"x_{one}", one, "x", windows=("24s", "1h"))
            for one in ("count", "sum", "mean", "min", "last")
        ),
    ],
)
TWICE = fs.DerivedView("twice", [VIEW["x_sum_1h"]], [fs.Feature("twice", float, "x_sum_1h * 2")])
PROJECT = fs.Project((VIEW, TWICE))


class Both:
    """Writes to two databases, reads from the first."""

    def __init__(self, first: Database, second: Database) -> None:
        self.query, self.query_arrow = first.query, first.query_arrow
        self._first, self._second = first, second

    def append(self, job: AppendJob) -> AppendReply:
        self._second.append(job)
        return self._first.append(job)

    def ensure(self, job: SchemaJob) -> None:
        self._first.ensure(job)

    def close(self) -> None:
        self._first.close()


@pytest.mark.services
def test_served_and_embedded_give_the_same_bytes(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "_PAGE_BYTES", 20_000)  # several pages
    chance = random.Random(5)
    settings = settings_for(tmp_path, redis_url)
    with on_a_thread(settings, schema_job(PROJECT)), client(settings) as database:
        embedded = MemoryStore(PROJECT)
        embedded.database = Both(embedded.database, database)
        for batch in range(12):
            records = [
                {
                    "user_id": chance.randrange(9),
                    "at": NOON + chance.randrange(400) * SECOND,
                    "x": chance.choice([None, chance.gauss(0, 1e6), 0.1]),
                    "s": chance.choice([None, "", "ü", "abc"]),
                }
                for _ in range(50)
            ]
            embedded.send(EVENTS, *records, created_at=NOON + (400 + batch) * SECOND)
        served = Store(PROJECT, database, MemoryOnlineStore())
        rows = pa.table(
            {
                "user_id": [chance.randrange(10) for _ in range(300)],
                "event_timestamp": [NOON + chance.randrange(500) * SECOND for _ in range(300)],
            }
        )
        for options in ({}, {"known_at": "row"}, {"known_at": NOON + 405 * SECOND}):
            one = embedded.training_set(rows, [VIEW, TWICE], **options)  # type: ignore[arg-type]
            other = served.training_set(rows, [VIEW, TWICE], **options)  # type: ignore[arg-type]
            assert one.receipt.sha256 == other.receipt.sha256
            assert one.table.equals(other.table)
            assert one.receipt.inputs == other.receipt.inputs
            assert served.reproduce(other.receipt, rows).receipt == other.receipt
