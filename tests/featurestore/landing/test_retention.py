"""Compaction and retention: fewer files, the same batches with the same rows; nothing goes that somebody waits for."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.definitions.source import Source
from featurestore.errors import CorruptFileError, TerminalError
from featurestore.landing.batch import Batch
from featurestore.landing.dead_letters import DeadLetter
from featurestore.landing.disk import DiskStorage
from featurestore.landing.publish import Fenced, Published
from featurestore.landing.retention import Tended, tend
from featurestore.landing.schema import landed_schema
from featurestore.landing.zone import LandingZone
from featurestore_dagster.features.user import PROFILES, USER_EVENTS
from tests.featurestore.landing.test_zone import CHAIN, events, land
from tests.stepwise import kill_at_each_step

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
NOW = NOON + 100 * HOUR
KEPT = replace(USER_EVENTS, keep="98h")
DEAD = DeadLetter(9, "not JSON", b"{", b"key")


def tended(zone: LandingZone, source: Source, now: datetime = NOW) -> Tended:
    """Where nobody waits for anything."""
    return tend(zone, source, now, is_applied=lambda _: True, is_in_lake=lambda _: True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "landing"


@pytest.fixture
def zone(root: Path) -> LandingZone:
    fill(root)
    return LandingZone(root)


def fill(root: Path) -> None:
    """Four hours: twelve batches of ten offsets in each, one of them with a dead letter, then a last one."""
    zone, previous = LandingZone(root), None
    for number in range(49):
        dead = [DEAD] if number % 12 == 5 else []
        done = land(zone, number * 10, number * 10 + 10, previous, now=NOON + number * 5 * MINUTE, dead=dead)
        assert isinstance(done, Published)
        previous = done.batch


def contents(zone: LandingZone) -> list[tuple[Batch, pa.Table, list[DeadLetter]]]:
    return [(batch, zone.read(batch), zone.dead_letters_of(batch)) for batch in zone.batches("user_events")]


def files(root: Path) -> list[str]:
    return sorted(path.name for path in (root / CHAIN).glob("*.parquet") if "dead" not in path.name)


def test_closed_hours_are_one_file_with_the_same_batches(zone: LandingZone, root: Path) -> None:
    before = contents(zone)
    done = tended(zone, USER_EVENTS)
    assert done == Tended(compacted_hours=4, compacted_batches=48)
    assert files(root) == [f"{start:020d}.r1.parquet" for start in (0, 120, 240, 360)] + [f"{480:020d}.parquet"]
    assert contents(zone) == contents(LandingZone(root)) == before
    assert [LandingZone(root).batch(batch.batch_id) for batch, _, _ in before] == [batch for batch, _, _ in before]
    assert tended(LandingZone(root), USER_EVENTS) == Tended()
    assert zone.sweep(CHAIN) == 0  # dead letters are still named


def test_sql_reads_the_files_that_there_are(zone: LandingZone, root: Path) -> None:
    before = sum(batch.rows for batch in zone.batches())
    tended(zone, KEPT)
    for seen in (zone, LandingZone(root)):
        paths = [root / path for path in seen.files("user_events")]
        assert [path.name for path in paths] == files(root)
        assert sum(pq.read_metadata(path).num_rows for path in paths) == before - seen.removed("user_events").rows


def test_who_looked_before_sees_what_was_compacted_before_he_saw_it(root: Path, zone: LandingZone) -> None:
    early = LandingZone(root)
    for path in sorted((root / CHAIN).glob("*.parquet")):
        if path.name > f"{65:020d}":
            shutil.move(path, root)
    assert len(early.batches("user_events")) == 7
    for path in root.glob("*.parquet"):
        shutil.move(path, root / CHAIN)
    before = contents(LandingZone(root))
    tended(LandingZone(root), USER_EVENTS)
    assert contents(early) == before
    assert early.alarms() == []


def test_the_chain_goes_on_after_compaction_and_zombies_land_nothing(zone: LandingZone, root: Path) -> None:
    before = contents(zone)
    tended(zone, USER_EVENTS)
    tail = zone.tail(CHAIN)
    assert tail is not None
    zombie = land(LandingZone(root), 20, 50, before[1][0], now=NOON)  # still believes in a tail of long ago
    assert isinstance(zombie, Published)
    assert contents(LandingZone(root)) == before  # what it wrote stands in a compacted file and is no batch
    tended(LandingZone(root), USER_EVENTS)
    assert not (root / CHAIN / f"{20:020d}.parquet").exists()
    assert isinstance(land(zone, 480, 500, before[-2][0]), Fenced)
    assert isinstance(land(zone, 490, 500, tail, now=NOW), Published)
    assert len(LandingZone(root).batches()) == 50


def test_hours_that_a_view_waits_for_are_left_alone(zone: LandingZone, root: Path) -> None:
    waiting = zone.batches()[15].batch_id
    done = tend(
        zone,
        KEPT,
        NOW,
        is_applied=lambda batch: batch.batch_id != waiting,
        is_in_lake=lambda batch: batch.batch_id != waiting,
    )
    assert done.compacted_hours == 2  # the first was removed, the second waits
    assert done.removed_batches == 12
    assert waiting in {batch.batch_id for batch in LandingZone(root).batches()}


def test_what_only_duckdb_has_is_kept(zone: LandingZone) -> None:
    done = tend(zone, KEPT, NOW, is_applied=lambda _: True, is_in_lake=lambda batch: batch.start >= 120)
    assert (done.removed_batches, done.compacted_hours) == (0, 4)


def test_what_is_too_old_goes_as_a_prefix(zone: LandingZone, root: Path) -> None:
    before = contents(zone)
    assert tended(zone, KEPT).removed_batches == 24
    for seen in (zone, LandingZone(root)):
        assert contents(seen) == before[24:]
        assert (seen.removed("user_events").batches, seen.removed("user_events").rows) == (24, 238)
    with pytest.raises(TerminalError, match="was removed"):
        zone.read(before[0][0])
    assert not [path for path in (root / CHAIN).iterdir() if path.name < f"{240:020d}"]
    assert tended(zone, KEPT, NOW + HOUR).removed_batches == 12  # now it is a compacted file that goes
    zone.batches()
    assert zone.removed("user_events").batches == 36
    far = tended(zone, KEPT, NOW + 1000 * HOUR)
    assert far.removed_batches == 12
    assert [batch.start for batch in LandingZone(root).batches()] == [480]  # the last file stays for ever


def test_dead_letters_are_kept_for_a_time_of_their_own(zone: LandingZone, root: Path) -> None:
    kept = replace(USER_EVENTS, keep_dead_letters="98h")
    assert tended(zone, kept).removed_dead_letters == 2
    assert [len(dead) for _, _, dead in contents(LandingZone(root))].count(1) == 2
    assert sum(batch.dead_rows for batch in LandingZone(root).batches()) == 4  # they count all the same


def test_uploads_leave_their_manifest(root: Path) -> None:
    zone = LandingZone(root)
    upload = zone.open_upload("profiles", "one")
    schema = landed_schema(PROFILES)
    upload.write_part(schema.empty_table(), first_row=0, end_row=1)
    landed = upload.publish(sha256="x", size_bytes=1, schema=schema, schema_version="1", dead=[DEAD], now=lambda: NOON)
    assert len(zone.batches()) == 1
    tended(zone, PROFILES)
    assert len(LandingZone(root).batches()) == 1
    assert tended(zone, replace(PROFILES, keep="1h")).removed_batches == 1
    again = LandingZone(root)
    assert again.batches() == []
    assert again.removed("profiles").dead_rows == 1
    assert again.open_upload("profiles", "one").manifest() == landed  # the same id does not land twice
    assert {path.name for path in (root / "profiles" / "upload=one").iterdir()} == {"manifest.json", "removed"}


def test_a_damaged_file_is_not_compacted(zone: LandingZone, root: Path) -> None:
    victim = root / zone.batches()[3].batch_id
    data = bytearray(victim.read_bytes())
    data[40] ^= 1
    victim.write_bytes(data)
    with pytest.raises(CorruptFileError):
        tended(zone, USER_EVENTS)
    assert len(files(root)) == 49


def tend_in(home: Path) -> None:
    tended(LandingZone(home), KEPT)


@pytest.mark.slow
def test_killed_at_any_step_it_loses_and_doubles_nothing(root: Path) -> None:
    fill(root)
    before = contents(LandingZone(root))

    def check() -> None:
        assert contents(LandingZone(root)) in (before, before[24:])
        tend_in(root)
        assert contents(LandingZone(root)) == before[24:]
        assert len(files(root)) == 3

    assert kill_at_each_step("tests.featurestore.landing.test_retention:tend_in", root, check=check) > 4


def test_a_wrong_file_is_taken_away_again(root: Path, zone: LandingZone, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of verification: a disk that gives back something else."""
    monkeypatch.setattr("featurestore.landing.rewritten.read_rows", lambda storage, path: events([1]))
    with pytest.raises(CorruptFileError, match="cannot be read back"):
        tended(zone, USER_EVENTS)
    assert len(files(root)) == 49
    assert isinstance(zone.storage, DiskStorage)
