"""Dead letters that are replayed after a fix: each counts once, and names where it came from."""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import featurestore as fs
from featurestore.errors import CorruptFileError
from featurestore.landing.batch import Batch
from featurestore.landing.columns import Door
from featurestore.landing.dead_letters import DeadLetter
from featurestore.landing.publish import Published
from featurestore.landing.schema import landed_schema
from featurestore.landing.zone import LandingZone, kafka_chain
from ingest.records import JsonDecoder
from ingest.replay import Replay, replay

NOW = datetime(2026, 5, 4, 10, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
USER = fs.Entity("user", key="user_id")
CHAIN = kafka_chain("clicks", "cluster", "topic", 0)


def project(**columns: object) -> fs.Project:
    schema = {"user_id": int, "n": int, **columns}
    source = fs.KafkaSource("clicks", timestamp="at", schema=schema, unknown_fields="reject")  # type: ignore[arg-type]
    return fs.Project((fs.FeatureView("view", USER, source, [fs.Feature("last_n", int, "n")]),))


STRICT, MENDED = project(), project(page=str | None)


def record(user: int, n: int, more: str = "") -> bytes:
    return f'{{"user_id":{user},"n":{n},"at":"2026-05-04T09:00:00Z"{more}}}'.encode()


RECORDS = [record(1, 0), record(1, 1, ',"page":"a"'), b"{", record(2, 3, ',"page":"b"'), record(2, 4)]


def land(zone: LandingZone, records: Sequence[bytes] = RECORDS, start: int = 0) -> Batch:
    """As the Kafka daemon does, by the strict declaration."""
    sequences = range(start, start + len(records))
    decoded = JsonDecoder(Door.of(STRICT.source("clicks"), STRICT)).decode(records, sequences, NOW)
    result = zone.publish(
        CHAIN,
        decoded.rows,
        source="clicks",
        start=start,
        end=start + len(records),
        schema_version="1",
        previous=None,
        dead=[DeadLetter(start + one.row, one.reason, records[one.row], b"2") for one in decoded.rejections],
        now=lambda: NOW,
    )
    assert isinstance(result, Published)
    return result.batch


@pytest.fixture
def zone(tmp_path: Path) -> LandingZone:
    return LandingZone(tmp_path)


def received(zone: LandingZone) -> int:
    """landed + dead letters, P1's right side."""
    return sum(batch.rows for batch in zone.batches()) + len(list(zone.dead_letters()))


def test_what_can_be_landed_is_landed_with_its_origin(zone: LandingZone) -> None:
    origin = land(zone)
    assert replay(zone, STRICT, origin, now=lambda: LATER) == Replay(
        None, ("page: not declared", "the JSON is cut, or a text holds half a surrogate pair", "page: not declared")
    )

    outcome = replay(zone, MENDED, origin, now=lambda: LATER)

    batch = outcome.landed
    assert batch is not None
    assert (batch.origin, batch.rows, batch.created_at) == (origin.batch_id, 1, LATER)
    assert outcome.reasons[0] == "the Kafka key is not the text of user_id"  # every rule holds again
    fresh = LandingZone(zone.storage)
    assert fresh.batches("clicks") == [origin, batch]
    assert fresh.read(batch).to_pylist()[0]["sequence"] == 3
    assert [one.sequence for _, one in fresh.dead_letters()] == [1, 2]
    assert received(fresh) == len(RECORDS)


def test_it_counts_once_however_often_it_is_replayed(zone: LandingZone) -> None:
    origin = land(zone)
    for _ in range(3):
        replay(zone, MENDED, origin)
        replay(LandingZone(zone.storage), MENDED, origin)
    assert [batch.rows for batch in zone.batches() if batch.origin] == [1]
    assert received(zone) == len(RECORDS)


def test_it_counts_once_by_however_many_it_is_replayed_at_once(zone: LandingZone) -> None:
    origin = land(zone, [record(2, n, ',"page":"a"') for n in range(50)])
    barrier, outcomes = threading.Barrier(6), list[Replay]()

    def run() -> None:
        barrier.wait(10)
        outcomes.append(replay(LandingZone(zone.storage), MENDED, origin))

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(outcomes) == 6
    assert sum(one.landed is not None for one in outcomes) == 1
    assert received(zone) == 50


def test_a_second_fix_replays_what_the_first_one_left(zone: LandingZone) -> None:
    origin = land(zone, [record(2, 0, ',"page":"a"'), record(2, 1, ',"site":"b"')])
    replay(zone, MENDED, origin)
    outcome = replay(zone, project(page=str | None, site=str | None), origin)
    assert outcome.landed is not None
    assert outcome.landed.start == 1
    assert [batch.rows for batch in zone.batches()] == [0, 1, 1]
    assert list(zone.dead_letters()) == []
    assert received(zone) == 2


def test_no_replay_goes_on_behind_a_damaged_one(zone: LandingZone, tmp_path: Path) -> None:
    """Else what the damaged one holds would be landed twice."""
    origin = land(zone, [record(2, 0, ',"page":"a"')])
    batch = replay(zone, MENDED, origin).landed
    assert batch is not None
    path = tmp_path / batch.batch_id
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CorruptFileError):
        replay(LandingZone(zone.storage), MENDED, origin)


def test_replayed_rows_have_the_columns_of_today(zone: LandingZone) -> None:
    batch = replay(zone, MENDED, land(zone)).landed
    assert batch is not None
    assert zone.read(batch).schema.equals(landed_schema(MENDED.source("clicks")))
