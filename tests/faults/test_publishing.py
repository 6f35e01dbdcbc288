"""A writer that is killed at any step of landing: what is visible is whole, and going on at the tail loses nothing.

Negative controls: with the end in the name, two writers of one start both land; sweeping by age takes dead letters that
are about to be named; with `created_at = now()` a clock that steps back turns the order of corrections.
"""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from featurestore.landing import publish
from featurestore.landing.disk import TEMPORARY, DiskStorage
from featurestore.landing.zone import LandingZone
from tests.faults.publisher import CHAIN, DEAD_EVERY, END, NOW, FencedError, land
from tests.ingest.power import Durable

GOOD = [n for n in range(END) if n % DEAD_EVERY]
BAD = [n for n in range(END) if n % DEAD_EVERY == 0]


def found(zone: LandingZone) -> tuple[list[int], list[int]]:
    rows = [n for batch in zone.batches() for n in zone.read(batch)["sequence"].to_pylist()]
    return sorted(rows), sorted(letter.sequence for _, letter in zone.dead_letters())


@pytest.mark.slow
def test_killed_at_any_step_nothing_is_lost_or_landed_twice(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "tests.faults.publisher", str(tmp_path)], check=True, timeout=100)
    killed = list(tmp_path.iterdir())
    assert len(killed) > 20, "it was not killed at all of its steps"
    ends = set[int]()
    for root in killed:
        zone = LandingZone(root)
        tail = zone.tail(CHAIN)
        end = tail.end if tail else 0
        ends.add(end)
        assert found(zone) == ([n for n in GOOD if n < end], [n for n in BAD if n < end])
        if end < END:
            land(zone, end, END, tail)
        assert found(LandingZone(root)) == (GOOD, BAD)
        last = land(zone, END, END + 10, zone.tail(CHAIN))  # so that nothing of before is at the tail
        zone.sweep(CHAIN)
        named = {batch.dead_letters for batch in zone.batches()}
        assert {path.name for path in root.rglob("*.dead.parquet")} == named
        assert not list(root.rglob(f"*{TEMPORARY}"))
        assert last.start == END
    assert ends == {0, 10, END}


def test_directories_of_a_writer_that_was_killed_before_it_synced_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "landing" / CHAIN).mkdir(parents=True)
    durable = Durable(monkeypatch)
    land(LandingZone(tmp_path / "data" / "landing"), 0, END, None)

    left = LandingZone(durable.restore(tmp_path / "data", tmp_path / "left") / "landing")

    assert found(left) == (GOOD, BAD)


@pytest.mark.parametrize("weak", [False, True])
def test_two_writers_of_one_start_that_have_read_unlike_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weak: bool
) -> None:
    landed = 0
    for end in (10, 15):
        if weak:
            monkeypatch.setattr(publish, "file_name", lambda start, end=end: f"{start:020d}.{end:020d}.parquet")
        try:
            land(LandingZone(tmp_path), 0, end, None)
            landed += 1
        except FencedError:
            pass
    assert landed == (2 if weak else 1)


def sweep_by_age(storage: DiskStorage) -> None:
    """Instead of `LandingZone.sweep`: what nobody names by now is taken for a leftover."""
    zone = LandingZone(storage)
    named = {batch.dead_letters for batch in zone.batches()}
    for name in storage.names(CHAIN):
        if name.endswith(".dead.parquet") and name not in named:
            storage.remove(f"{CHAIN}/{name}")


@pytest.mark.parametrize("by_age", [False, True])
def test_sweeping_while_a_slow_writer_is_between_its_two_files(tmp_path: Path, by_age: bool) -> None:
    class Slow(DiskStorage):
        def create(self, file, path):  # type: ignore[no-untyped-def]
            if not path.endswith(".dead.parquet"):  # its dead letters are there: others start, and sweep
                sweep_by_age(self) if by_age else LandingZone(self).sweep(CHAIN)
            return super().create(file, path)

    zone = LandingZone(Slow(tmp_path))
    land(zone, 0, 10, None)
    bad = [] if by_age else [n for n in BAD if n < 10]
    assert found(zone) == ([n for n in GOOD if n < 10], bad)


@pytest.mark.parametrize("weak", [False, True])
def test_a_clock_that_steps_back_between_two_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weak: bool
) -> None:
    """Of two values of one event time the one that landed later wins, by created_at."""
    if weak:
        monkeypatch.setattr(publish, "next_created_at", lambda now, previous: now)
    zone, first = LandingZone(tmp_path), None
    for start, now in ((0, NOW), (10, NOW - timedelta(hours=1)), (20, NOW - timedelta(hours=2))):
        monkeypatch.setattr("tests.faults.publisher.NOW", now)
        first = land(zone, start, start + 10, first)
    in_order = [batch.start for batch in zone.batches()] == [0, 10, 20]
    assert in_order is not weak
