"""What the landing zone asks of a storage, and what it promises on top: on the local disk and in Azure Blob Storage."""

import io
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from featurestore.errors import CorruptFileError, SettingsError, StoreUnavailableError, TransientError
from featurestore.landing.batch import Batch, to_micros
from featurestore.landing.blob import BlobStorage
from featurestore.landing.dead_letters import DeadLetter
from featurestore.landing.disk import DiskStorage
from featurestore.landing.publish import Fenced, Published
from featurestore.landing.schema import landed_schema, time_range
from featurestore.landing.storage import Storage, open_storage
from featurestore.landing.zone import LandingZone, kafka_chain
from featurestore.settings import AzureSettings, Settings
from featurestore_dagster.features.user import USER_EVENTS

CHAIN = kafka_chain("user_events", "cluster", "topic", 0)
NOW = datetime(2026, 5, 4, 10, 59, 59, tzinfo=UTC)


@pytest.fixture(params=["disk", pytest.param("azure", marks=pytest.mark.services)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "disk":
        return DiskStorage(tmp_path / "landing")
    return BlobStorage(request.getfixturevalue("azurite").settings, f"landing-{uuid.uuid4().hex}")


@pytest.fixture
def zone(storage: Storage) -> LandingZone:
    return LandingZone(storage)


def write(storage: Storage, path: str, data: bytes) -> bool:
    with storage.writing(path) as file:
        file.write(data)
        return storage.create(file, path)


def read(storage: Storage, path: str) -> bytes:
    with storage.open(path) as file:
        return file.read()


def at_once(*calls: Callable[[], object]) -> None:
    """Call all of them in threads that start together."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> None:
        barrier.wait(10)
        call()

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


# ---- the storage


def test_an_empty_storage_has_nothing(storage: Storage) -> None:
    assert storage.directories() == []
    assert storage.names("a/b") == []
    with pytest.raises(FileNotFoundError):
        storage.open("a/b/c")
    storage.remove("a/b/c")


def test_a_file_is_created_once(storage: Storage) -> None:
    assert write(storage, "a/b/1.parquet", b"first")
    assert not write(storage, "a/b/1.parquet", b"second")
    assert read(storage, "a/b/1.parquet") == b"first"
    written_at = storage.written_at("a/b/1.parquet")
    assert written_at is not None
    assert abs((datetime.now(UTC) - written_at).total_seconds()) < 60
    assert storage.written_at("a/b/2.parquet") is None
    assert storage.names("a/b") == ["1.parquet"]


def test_a_file_is_replaced_and_its_name_is_never_free(storage: Storage) -> None:
    write(storage, "a/1.parquet", b"first")
    seen: list[bytes] = []
    taken: list[bool] = []

    def replace() -> None:
        for number in range(20):
            with storage.writing("a/1.parquet") as file:
                file.write(b"%d" % number * 1000)
                storage.replace(file, "a/1.parquet")

    def look() -> None:
        for _ in range(20):
            with suppress(TransientError):  # it was replaced meanwhile
                seen.append(read(storage, "a/1.parquet"))
            taken.append(write(storage, "a/1.parquet", b"late"))

    at_once(replace, look)
    assert {one for one in seen if one != b"first"} <= {b"%d" % number * 1000 for number in range(20)}
    assert taken == [False] * 20
    assert read(storage, "a/1.parquet") == b"19" * 1000
    assert storage.names("a") == ["1.parquet"]


def test_of_many_who_create_a_file_one_does(storage: Storage) -> None:
    won: list[bytes] = []
    texts = [f"{number} ".encode() * 10_000 for number in range(6)]
    at_once(*(lambda text=text: write(storage, "a/1.parquet", text) and won.append(text) for text in texts))
    assert [read(storage, "a/1.parquet")] == won


def test_a_file_that_was_not_created_leaves_nothing(storage: Storage) -> None:
    def fail() -> None:
        with storage.writing("a/1.parquet") as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert storage.names("a") == []


def test_names_and_directories_are_of_one_level(storage: Storage) -> None:
    for path in ("a/1", "a/2", "a/b/3", "a/c/d/4", "ab/5"):
        write(storage, path, b"x")
    assert storage.directories() == ["a", "ab"]
    assert storage.directories("a") == ["b", "c"]
    assert sorted(storage.names("a")) == ["1", "2"]
    storage.remove("a/1")
    assert storage.names("a") == ["2"]


def test_a_file_is_read_from_anywhere(storage: Storage) -> None:
    write(storage, "a/1", bytes(range(256)))
    with storage.open("a/1") as file:
        assert file.seek(-6, io.SEEK_END) == 250
        assert file.read(3) == bytes([250, 251, 252])
        assert file.tell() == 253
        assert file.read() == bytes([253, 254, 255])
        assert file.read(1) == b""
        assert file.seek(0) == 0
        assert file.read() == bytes(range(256))


def test_a_state_that_is_told_changes_with_the_names(storage: Storage) -> None:
    write(storage, "a/1", b"x")
    before = storage.state("a")
    write(storage, "a/2", b"x")
    assert before is None or storage.state("a") != before


# ---- the landing zone


def events(numbers: range) -> pa.Table:
    columns = {
        "sequence": numbers,
        "event_timestamp": [to_micros(NOW) + n for n in numbers],
        "user_id": numbers,
        "action": ["click"] * len(numbers),
        "amount": [None] * len(numbers),
    }
    return pa.table({name: pa.array(values) for name, values in columns.items()}).cast(landed_schema(USER_EVENTS))


def land(zone: LandingZone, start: int, end: int, previous: Batch | None = None, dead: int = 0) -> Published | Fenced:
    return zone.publish(
        CHAIN,
        events(range(start, end - dead)),
        source="user_events",
        start=start,
        end=end,
        schema_version="1",
        previous=previous,
        dead=[DeadLetter(end - 1 - n, "bad", b"\xff", b"key") for n in range(dead)],
        now=lambda: NOW,
    )


def test_batches_follow_one_another_and_are_read_as_they_were_landed(zone: LandingZone, storage: Storage) -> None:
    assert zone.tail(CHAIN) is None
    first = land(zone, 0, 10, dead=1)
    assert isinstance(first, Published)
    second = land(zone, 10, 20, first.batch)
    assert isinstance(second, Published)
    fresh = LandingZone(storage)
    assert fresh.tail(CHAIN) == second.batch
    assert fresh.batches() == [first.batch, second.batch]
    assert fresh.batch(first.batch.batch_id) == first.batch
    assert fresh.read(first.batch).equals(events(range(9)))
    assert list(fresh.dead_letters()) == [(first.batch, DeadLetter(9, "bad", b"\xff", b"key"))]
    assert fresh.alarms() == []
    with pytest.raises(KeyError):
        fresh.batch(f"{CHAIN}/{30:020d}.parquet")


def test_a_reader_sees_what_lands_meanwhile(zone: LandingZone, storage: Storage) -> None:
    reader, previous = LandingZone(storage), None
    for start in range(0, 50, 10):
        landed = land(zone, start, start + 10, previous)
        assert isinstance(landed, Published)
        previous = landed.batch
        assert reader.batches()[-1] == previous


def test_of_writers_from_one_start_one_lands_and_the_others_are_fenced(zone: LandingZone, storage: Storage) -> None:
    results: list[Published | Fenced] = []
    at_once(*(lambda length=length: results.append(land(zone, 0, length, dead=1)) for length in range(5, 11)))
    [won] = [one.batch for one in results if isinstance(one, Published)]
    assert [one.winner for one in results if isinstance(one, Fenced)] == [won] * 5
    assert LandingZone(storage).batches() == [won]
    assert len([name for name in storage.names(CHAIN) if name.endswith(".dead.parquet")]) == 1


def test_sweeping_takes_what_nobody_names_below_the_tail(zone: LandingZone, storage: Storage) -> None:
    first = land(zone, 0, 10, dead=1)
    assert isinstance(first, Published)
    land(zone, 10, 20, first.batch)
    for start in (0, 20):  # below the tail, and of a writer that may still publish
        write(storage, f"{CHAIN}/{start:020d}.{uuid.uuid4().hex}.dead.parquet", b"")
    assert zone.sweep(CHAIN) == 1
    assert zone.sweep(CHAIN) == 0
    assert len([name for name in storage.names(CHAIN) if name.endswith(".dead.parquet")]) == 2


def test_an_upload_lands_whole_and_once(zone: LandingZone, storage: Storage) -> None:
    upload = zone.open_upload("profiles", "u1")
    upload.write_part(events(range(5)), first_row=0, end_row=6)
    upload.write_part(events(range(6, 9)), first_row=6, end_row=9)
    assert LandingZone(storage).batches() == []
    dead = [DeadLetter(5, "bad", b"1,n/a")]
    manifest = upload.publish(
        sha256="ab", size_bytes=9, schema=landed_schema(USER_EVENTS), schema_version="1", dead=dead, now=lambda: NOW
    )
    fresh = LandingZone(storage)
    assert fresh.open_upload("profiles", "u1").manifest() == manifest
    assert sorted((one.start, one.end, one.rows) for one in fresh.batches("profiles")) == [(0, 6, 5), (6, 9, 3)]
    assert sum(fresh.read(one).num_rows for one in fresh.batches()) == 8
    assert [letter for _, letter in fresh.dead_letters()] == dead
    assert zone.open_upload("profiles", "u1").cancel(lambda: NOW) == manifest


def test_a_cancelled_upload_leaves_its_manifest_alone(zone: LandingZone, storage: Storage) -> None:
    upload = zone.open_upload("profiles", "u1")
    upload.write_part(events(range(5)), first_row=0, end_row=5)
    assert upload.cancel(lambda: NOW).state == "cancelled"
    assert storage.names(upload.chain) == ["manifest.json"]
    assert LandingZone(storage).batches() == []


def test_what_a_crash_left_of_an_upload_is_removed_once_that_is_decided(zone: LandingZone, storage: Storage) -> None:
    crashed, again = (zone.open_upload("profiles", "u1") for _ in range(2))
    for upload in (crashed, again):
        upload.write_part(events(range(5)), first_row=0, end_row=5)
    schema = landed_schema(USER_EVENTS)
    manifest = again.publish(sha256="ab", size_bytes=9, schema=schema, schema_version="1", dead=[], now=lambda: NOW)

    again.sweep(manifest)

    assert sorted(storage.names(again.chain)) == sorted(["manifest.json", manifest.parts[0].name])
    assert sum(zone.read(batch).num_rows for batch in zone.batches()) == 5


def test_who_gives_up_removes_its_own_parts(zone: LandingZone, storage: Storage) -> None:
    refused, racing = (zone.open_upload("profiles", "u1") for _ in range(2))
    for upload in (refused, racing):
        upload.write_part(events(range(5)), first_row=0, end_row=5)

    refused.discard()

    assert len(storage.names(racing.chain)) == 1
    schema = landed_schema(USER_EVENTS)
    racing.publish(sha256="ab", size_bytes=9, schema=schema, schema_version="1", dead=[], now=lambda: NOW)
    assert sum(zone.read(batch).num_rows for batch in zone.batches()) == 5


def test_an_upload_that_is_given_up_is_cancelled_only_if_something_is_left(zone: LandingZone, storage: Storage) -> None:
    nothing, something = (zone.open_upload("profiles", name) for name in ("u1", "u2"))
    something.write_part(events(range(5)), first_row=0, end_row=5)

    nothing.give_up(lambda: NOW)
    something.give_up(lambda: NOW)

    assert nothing.manifest() is None
    assert storage.names(something.chain) == ["manifest.json"]


def test_a_part_is_written_as_its_rows_come(zone: LandingZone) -> None:
    upload, schema = zone.open_upload("profiles", "u1"), landed_schema(USER_EVENTS)
    with upload.part(schema, first_row=0) as part:
        part.add(events(range(5)), end_row=6)
        part.add(events(range(6, 9)), end_row=10)
    with pytest.raises(ZeroDivisionError), upload.part(schema, first_row=10) as part:
        part.add(events(range(10, 12)), end_row=12 // 0)
    upload.publish(sha256="ab", size_bytes=9, schema=schema, schema_version="1", dead=[], now=lambda: NOW)

    [batch] = zone.batches()
    assert (batch.start, batch.end, batch.rows) == (0, 10, 8)
    assert (batch.min_event_timestamp, batch.max_event_timestamp) == time_range(zone.read(batch))
    assert zone.read(batch)["sequence"].to_pylist() == [0, 1, 2, 3, 4, 6, 7, 8]


def test_damage_is_found(zone: LandingZone, storage: Storage) -> None:
    landed = land(zone, 0, 10)
    assert isinstance(landed, Published)
    data = bytearray(read(storage, landed.batch.batch_id))
    data[30] ^= 1
    storage.remove(landed.batch.batch_id)
    write(storage, landed.batch.batch_id, bytes(data))
    with pytest.raises(CorruptFileError, match=storage.address):
        zone.read(landed.batch)
    storage.remove(landed.batch.batch_id)
    write(storage, landed.batch.batch_id, bytes(data[:-30]))
    fresh = LandingZone(storage)
    assert (fresh.batches(), len(fresh.alarms())) == ([], 1)


# ---- how it is chosen


def test_the_settings_choose(tmp_path: Path) -> None:
    assert open_storage(Settings(data_dir=tmp_path)).address == str(tmp_path / "landing")
    text = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:1/a;"
    azure = AzureSettings(connection_string=text, landing_container="landing")
    named = Settings(data_dir=tmp_path, azure=azure, namespace="blue")
    assert open_storage(named).address == "http://127.0.0.1:1/a/blue-landing"
    with pytest.raises(SettingsError, match="CONNECTION_STRING"):
        open_storage(Settings(azure=AzureSettings(landing_container="landing")))


def test_a_blob_service_that_does_not_answer_is_named() -> None:
    text = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:1/a;"
    with pytest.raises(StoreUnavailableError, match="Azure Blob Storage does not answer at http://127"):
        BlobStorage(AzureSettings(connection_string=text), "landing").names("a")
