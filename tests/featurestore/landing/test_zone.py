"""Landing: durable and whole before visible, one file per start, every flipped bit noticed."""

import os
import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from pathlib import Path

import pyarrow as pa
import pytest

from featurestore.errors import CorruptFileError, FormatError, NoSpaceError
from featurestore.landing import disk, parquet
from featurestore.landing.batch import Batch, to_micros
from featurestore.landing.dead_letters import DeadLetter
from featurestore.landing.publish import Fenced, Published
from featurestore.landing.schema import landed_schema
from featurestore.landing.zone import LandingZone, kafka_chain
from featurestore_dagster.features.user import USER_EVENTS

CHAIN = kafka_chain("user_events", "cluster", "topic", 0)
NOW = datetime(2026, 5, 4, 10, 59, 59, tzinfo=UTC)


def events(offsets: Sequence[int]) -> pa.Table:
    columns = {
        "sequence": offsets,
        "event_timestamp": [to_micros(NOW) + offset for offset in offsets],
        "user_id": [offset % 7 for offset in offsets],
        "action": ["click"] * len(offsets),
        "amount": [None] * len(offsets),
    }
    return pa.table({name: pa.array(values) for name, values in columns.items()}).cast(landed_schema(USER_EVENTS))


def land(
    zone: LandingZone,
    start: int,
    end: int,
    previous: Batch | None = None,
    *,
    now: datetime = NOW,
    dead: Sequence[DeadLetter] = (),
    chain: str = CHAIN,
) -> Published | Fenced:
    return zone.publish(
        chain,
        events(range(start, end - len(dead))),
        source="user_events",
        start=start,
        end=end,
        schema_version="1",
        previous=previous,
        dead=dead,
        now=lambda: now,
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "landing"


@pytest.fixture
def zone(root: Path) -> Iterator[LandingZone]:
    yield LandingZone(root)
    assert not list(root.rglob(f"*{disk.TEMPORARY}"))


def test_what_is_landed_is_what_is_read(zone: LandingZone) -> None:
    landed = land(zone, 0, 10, dead=[DeadLetter(9, "not JSON", b"{", b"key")])
    assert isinstance(landed, Published)
    fresh = LandingZone(zone.storage)
    assert fresh.batches() == [landed.batch]
    assert fresh.batch(landed.batch.batch_id) == landed.batch
    assert fresh.read(landed.batch).equals(events(range(9)))
    assert list(fresh.dead_letters()) == [(landed.batch, DeadLetter(9, "not JSON", b"{", b"key"))]
    assert (landed.batch.rows, landed.batch.dead_rows, landed.batch.hour) == (9, 1, NOW.replace(minute=0, second=0))


def test_the_chain_goes_on_where_it_ended(zone: LandingZone) -> None:
    assert zone.tail(CHAIN) is None
    first = land(zone, 0, 10)
    second = land(zone, 10, 15, first.batch if isinstance(first, Published) else None)
    assert isinstance(second, Published)
    assert LandingZone(zone.storage).tail(CHAIN) == second.batch
    assert [batch.start for batch in zone.batches("user_events")] == [0, 10]
    assert zone.batches("profiles") == []


def test_a_clock_that_steps_back_does_not_turn_the_order(zone: LandingZone) -> None:
    first = land(zone, 0, 10)
    assert isinstance(first, Published)
    second = land(zone, 10, 20, first.batch, now=NOW - timedelta(hours=2))
    assert isinstance(second, Published)
    assert second.batch.created_at == first.batch.created_at + timedelta(microseconds=1)


def test_one_of_many_writers_lands_a_start_and_the_others_learn_the_winner(zone: LandingZone, root: Path) -> None:
    barrier, results = threading.Barrier(8), list[Published | Fenced]()

    def write(length: int) -> None:
        barrier.wait(10)
        results.append(land(zone, 0, length, dead=[DeadLetter(length - 1, "bad", b"")]))

    threads = [threading.Thread(target=write, args=(length,)) for length in range(10, 18)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    [won] = [result for result in results if isinstance(result, Published)]
    assert all(result.winner == won.batch for result in results if isinstance(result, Fenced))
    assert zone.batches() == [won.batch]
    # The losers' dead letters are gone: they will come again in the winner's chain.
    assert len(list(root.rglob("*.dead.parquet"))) == 1


def test_a_repeated_publish_of_the_same_rows_finds_its_own_file(zone: LandingZone) -> None:
    first = land(zone, 0, 10)
    assert land(zone, 0, 10) == first
    assert isinstance(first, Published)


def test_a_file_off_the_chain_is_not_believed(zone: LandingZone, caplog: pytest.LogCaptureFixture) -> None:
    first = land(zone, 0, 10)
    land(zone, 12, 20)
    assert isinstance(first, Published)
    fresh = LandingZone(zone.storage)
    for _ in range(2):
        assert fresh.batches() == [first.batch]
        [alarm] = fresh.alarms()
        assert "a file starts at 12, but 10 comes next" in alarm
    assert caplog.text.count(alarm) == 1  # said once, not with every look


def test_a_chain_without_its_beginning_is_not_believed(zone: LandingZone, root: Path) -> None:
    first = land(zone, 0, 10)
    assert isinstance(first, Published)
    second = land(zone, 10, 20, first.batch)
    assert isinstance(second, Published)
    (root / first.batch.batch_id).unlink()
    fresh = LandingZone(zone.storage)
    assert fresh.batches() == []
    assert "a file starts at 10, but 0 comes next" in fresh.alarms()[0]

    (root / CHAIN / f"{10:020d}.floor").touch()  # it was removed on purpose

    assert fresh.batches() == [second.batch]
    assert fresh.alarms() == []


def flipped(data: bytes, bit: int) -> bytes:
    found = bytearray(data)
    found[bit // 8] ^= 1 << bit % 8
    return bytes(found)


def test_every_flipped_bit_is_noticed(zone: LandingZone, root: Path) -> None:
    landed = land(zone, 0, 500)
    assert isinstance(landed, Published)
    path = root / landed.batch.batch_id
    whole = path.read_bytes()
    for _ in range(400):
        path.write_bytes(flipped(whole, random.randrange(len(whole) * 8)))
        with pytest.raises(CorruptFileError):
            zone.read(landed.batch)
    path.write_bytes(whole[:-1])
    with pytest.raises(CorruptFileError):
        zone.read(landed.batch)


def test_no_flipped_bit_is_believed_in_a_listing(zone: LandingZone, root: Path) -> None:
    """What a batch says of itself is as it was landed, or the file is reported, or its rows cannot be read."""
    landed = land(zone, 0, 50)
    assert isinstance(landed, Published)
    path = root / landed.batch.batch_id
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for place in random.sample(range(footer, len(whole)), 300):
        path.write_bytes(flipped(whole, place * 8 + random.randrange(8)))
        fresh = LandingZone(zone.storage)
        for batch in fresh.batches():
            assert replace(batch, digest=landed.batch.digest) == landed.batch
            with pytest.raises(CorruptFileError):
                fresh.read(batch)
        assert fresh.batches() or path.name in fresh.alarms()[0]


def test_no_flipped_bit_of_a_manifest_is_believed(zone: LandingZone, root: Path) -> None:
    upload = zone.open_upload("profiles", "u1")
    upload.write_part(events(range(5)), first_row=0, end_row=5)
    schema = landed_schema(USER_EVENTS)
    upload.publish(sha256="ab", size_bytes=9, schema=schema, schema_version="1", dead=[], now=lambda: NOW)
    path = root / upload.chain / "manifest.json"
    whole = path.read_bytes()
    for bit in range(len(whole) * 8):
        path.write_bytes(flipped(whole, bit))
        fresh = LandingZone(zone.storage)
        assert (fresh.batches(), len(fresh.alarms())) == ([], 1)


def test_a_damaged_footer_holds_up_its_chain_alone_until_it_is_restored(zone: LandingZone, root: Path) -> None:
    first = land(zone, 0, 10)
    assert isinstance(first, Published)
    second = land(zone, 10, 20, first.batch)
    assert isinstance(second, Published)
    third = land(zone, 20, 30, second.batch)
    other = land(zone, 0, 10, chain=kafka_chain("user_events", "cluster", "topic", 1))
    assert isinstance(third, Published)
    assert isinstance(other, Published)
    path = root / second.batch.batch_id
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])

    fresh = LandingZone(zone.storage)
    assert set(map(attrgetter("batch_id"), fresh.batches())) == {first.batch.batch_id, other.batch.batch_id}
    assert second.batch.batch_id in fresh.alarms("user_events")[0]
    assert fresh.alarms("profiles") == []
    assert fresh.tail(CHAIN) == third.batch  # landing goes on

    path.write_bytes(whole)
    assert len(fresh.batches()) == 4
    assert fresh.alarms() == []


def test_a_full_disk_leaves_nothing_behind(zone: LandingZone, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(parquet, "_seal", full)
    with pytest.raises(NoSpaceError):
        land(zone, 0, 10)
    assert zone.batches() == []


def test_a_newer_format_is_refused_with_advice(zone: LandingZone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "FORMAT", 2)
    land(zone, 0, 10)
    monkeypatch.setattr(parquet, "FORMAT", 1)
    with pytest.raises(FormatError, match="format 2, this version reads up to 1; upgrade it"):
        zone.batches()


def test_sweeping_takes_only_what_nobody_names_below_the_tail(zone: LandingZone, root: Path) -> None:
    first = land(zone, 0, 10, dead=[DeadLetter(9, "bad", b"")])
    assert isinstance(first, Published)
    second = land(zone, 10, 20, first.batch)
    assert isinstance(second, Published)
    directory = root / CHAIN
    orphan = directory / f"{0:020d}.{'a' * 32}.dead.parquet"
    live = directory / f"{20:020d}.{'b' * 32}.dead.parquet"
    crashed = directory / f".{0:020d}.{'c' * 32}.tmp"
    for path in (orphan, live, crashed):
        path.touch()
    assert zone.sweep(CHAIN) == 2
    assert live.exists()
    assert len(list(zone.dead_letters())) == 1


def test_an_upload_is_visible_whole_or_not_at_all(zone: LandingZone) -> None:
    upload = zone.open_upload("user_events", "u1")
    upload.write_part(events(range(5)), first_row=0, end_row=6)
    upload.write_part(events(range(6, 9)), first_row=6, end_row=9)
    assert zone.batches() == []
    dead = [DeadLetter(5, "income: 'n/a' is not a number", b"1,n/a")]
    schema = landed_schema(USER_EVENTS)

    def publish() -> object:
        return upload.publish(sha256="ab", size_bytes=9, schema=schema, schema_version="1", dead=dead, now=lambda: NOW)

    manifest = publish()
    assert publish() == manifest
    batches = LandingZone(zone.storage).batches()
    assert sorted((batch.start, batch.end, batch.rows, batch.dead_rows) for batch in batches) == [
        (0, 6, 5, 1),
        (6, 9, 3, 0),
    ]
    assert sum(zone.read(batch).num_rows for batch in batches) == 8
    assert [one for _, one in zone.dead_letters()] == dead


def test_an_upload_of_bad_rows_only_still_counts(zone: LandingZone) -> None:
    dead = [DeadLetter(0, "bad", b"x")]
    zone.open_upload("user_events", "u1").publish(
        sha256="", size_bytes=1, schema=landed_schema(USER_EVENTS), schema_version="1", dead=dead, now=lambda: NOW
    )
    [batch] = zone.batches()
    assert (batch.rows, batch.dead_rows) == (0, 1)


@pytest.mark.parametrize("attempt", range(10))
def test_of_landing_and_cancelling_one_wins(zone: LandingZone, attempt: int) -> None:
    writer, canceller = (zone.open_upload("user_events", f"u{attempt}") for _ in range(2))
    writer.write_part(events(range(3)), first_row=0, end_row=3)
    barrier, states = threading.Barrier(2), list[str]()
    schema = landed_schema(USER_EVENTS)

    def publish() -> None:
        barrier.wait(10)
        won = writer.publish(sha256="", size_bytes=1, schema=schema, schema_version="1", dead=[], now=lambda: NOW)
        states.append(won.state)

    def cancel() -> None:
        barrier.wait(10)
        states.append(canceller.cancel(lambda: NOW).state)

    threads = [threading.Thread(target=publish), threading.Thread(target=cancel)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    [state] = set(states)
    assert len(zone.batches()) == (1 if state == "landed" else 0)
