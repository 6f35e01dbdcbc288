"""What waits to be processed, by landing zone and ledger."""

import threading
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from featurestore.apply import apply_batches
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.errors import StoreUnavailableError
from featurestore.landing.batch import Batch
from featurestore.landing.publish import Published
from featurestore.landing.schema import landed_schema
from featurestore.landing.zone import LandingZone, kafka_chain
from featurestore.offline.tables import schema_job
from ingest.kafka import backlog as module
from ingest.kafka.backlog import Backlog, Standing
from tests.ingest.kafka.conftest import project

PROJECT = project("t")
[VIEW], SOURCE = PROJECT.feature_views, PROJECT.source("source_0")
CHAIN = kafka_chain(SOURCE.name, "cluster", "topic", 0)


@pytest.fixture
def zone(tmp_path: Path) -> LandingZone:
    return LandingZone(tmp_path)


@pytest.fixture
def database() -> Generator[EmbeddedDatabase]:
    opened = EmbeddedDatabase()
    yield opened
    opened.close()


def land(zone: LandingZone, start: int) -> Batch:
    table = landed_schema(SOURCE).empty_table()
    now = datetime.now(UTC) + timedelta(seconds=start)
    result = zone.publish(
        CHAIN,
        table,
        source=SOURCE.name,
        start=start,
        end=start + 1,
        schema_version="",
        previous=None,
        absent_rows=1,
        now=lambda: now,
    )
    assert isinstance(result, Published)
    return result.batch


def test_what_no_registered_view_misses_is_not_pending(zone: LandingZone, database: EmbeddedDatabase) -> None:
    land(zone, 0)
    one = Backlog(zone, PROJECT, lambda: database)
    one.look(database)
    assert one.standing == Standing()


def test_what_is_landed_and_not_applied_is_pending(zone: LandingZone, database: EmbeddedDatabase) -> None:
    database.ensure(schema_job(PROJECT))
    first, second = land(zone, 0), land(zone, 1)
    one = Backlog(zone, PROJECT, lambda: database)
    one.look(database)
    assert one.standing.pending_bytes == first.bytes + second.bytes

    apply_batches(VIEW, [first], zone, database, None)
    one.look(database)
    assert one.standing.pending_bytes == second.bytes

    apply_batches(VIEW, [second], zone, database, None)
    third = land(zone, 2)
    one.look(database)
    assert one.standing.pending_bytes == third.bytes
    again = Backlog(zone, PROJECT, lambda: database)  # after a restart
    again.look(database)
    assert again.standing == one.standing
    assert again._applied == one._applied == set()  # what is done is not remembered pair by pair


def test_another_database_is_another_ledger(zone: LandingZone, database: EmbeddedDatabase) -> None:
    database.ensure(schema_job(PROJECT))
    restored = EmbeddedDatabase()
    restored.ensure(schema_job(PROJECT))
    batch = land(zone, 0)
    apply_batches(VIEW, [batch], zone, database, None)
    one = Backlog(zone, PROJECT, lambda: database)
    one.look(database)
    assert one.standing.pending_bytes == 0
    one.look(restored)
    assert one.standing.pending_bytes == batch.bytes
    restored.close()


def test_damage_is_told_and_a_silent_database_leaves_the_last_look(
    zone: LandingZone, database: EmbeddedDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.ensure(schema_job(PROJECT))
    batch = land(zone, 0)
    one = Backlog(zone, PROJECT, lambda: database)
    one.look(database)
    damaged = tmp_path / land(zone, 1).batch_id
    damaged.write_bytes(damaged.read_bytes()[:-20])

    def silent(*_: object, **__: object) -> object:
        raise StoreUnavailableError("Redis", "127.0.0.1:1")

    monkeypatch.setattr(module, "read_news", silent)
    with pytest.raises(StoreUnavailableError):
        one.look(database)
    assert one.standing.pending_bytes == batch.bytes
    assert damaged.name in one.standing.alarms[0]


def test_it_watches_in_a_thread_of_its_own(
    zone: LandingZone, database: EmbeddedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_S", 0.01)
    database.ensure(schema_job(PROJECT))
    batch, seen = land(zone, 0), threading.Event()

    class Watched(Backlog):
        def look(self, database: object) -> None:
            super().look(database)  # type: ignore[arg-type]
            if self.standing.pending_bytes == batch.bytes:
                seen.set()

    with Watched(zone, PROJECT, lambda: database).watching():
        assert seen.wait(30)
        [thread] = [one for one in threading.enumerate() if one.name == "backlog"]
    thread.join(30)  # before its database is closed
