"""Backups: verified, made while files come and go, and enough to have everything again."""

import random
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from featurestore.errors import CorruptFileError, TerminalError
from featurestore.landing.disk import DiskStorage
from featurestore.recovery import backup as backup_module
from featurestore.recovery.backup import Backup, Places, back_up, read_backup, restore_files, verify
from tests.featurestore.recovery.test_rebuild import LATER, START, Store, fill

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def quiet(what: str, done: int, of: int) -> None:
    """Progress nobody looks at."""


def saved(store: Store, directory: Path) -> Backup:
    return back_up(places(store), directory, NOW, progress=quiet)


def places(store: Store) -> Places:
    return Places(store.zone.storage, store.lake.root, store.lake.root.with_name("erasures"))


def nowhere(home: Path) -> Places:
    return Places(DiskStorage(home / "new"), home / "lake", home / "erasures")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "home")
    fill(store, random.Random(1), 12, START)
    store.apply()
    store.move(START + timedelta(days=20))
    fill(store, random.Random(2), 12, LATER)
    store.apply()
    return store


def test_a_restored_backup_has_the_same_log(store: Store, tmp_path: Path) -> None:
    before = store.digest()
    made = saved(store, tmp_path / "backup")
    assert verify(tmp_path / "backup", progress=quiet) == made
    other = Store(tmp_path / "other")
    restore_files(tmp_path / "backup", places(other), progress=quiet)
    other.rebuild()
    assert other.digest() == before


def test_a_second_one_copies_what_is_new_and_drops_what_is_gone(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(store, tmp_path / "backup")
    copied: list[str] = []
    copy = backup_module._copy
    monkeypatch.setattr(backup_module, "_copy", lambda a, path, c, d: copied.append(path) or copy(a, path, c, d))
    saved(store, tmp_path / "backup")
    assert copied == ["manifest.json"]
    fill(store, random.Random(3), 1, LATER + timedelta(days=50))
    store.tend(LATER)
    made = saved(store, tmp_path / "backup")
    there = {path.relative_to(tmp_path / "backup") for path in (tmp_path / "backup").rglob("*") if path.is_file()}
    assert {Path(one.path) for one in made.files} | {Path("backup.json")} == there
    verify(tmp_path / "backup", progress=quiet)


def test_files_that_are_compacted_meanwhile_are_looked_for_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, copy, calls = store.digest(), backup_module._copy, [0]

    def compacting(*arguments: object) -> object:
        calls[0] += 1
        if calls[0] == 2:
            store.tend(START)
        return copy(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(backup_module, "_copy", compacting)
    saved(store, tmp_path / "backup")
    other = Store(tmp_path / "other")
    restore_files(tmp_path / "backup", places(other), progress=quiet)
    other.rebuild()
    assert other.digest() == before


def test_a_damaged_backup_is_refused_before_anything_changes(store: Store, tmp_path: Path) -> None:
    made = saved(store, tmp_path / "backup")
    for number, one in enumerate(made.files):
        if number % 5 == 0:
            whole = (tmp_path / "backup" / one.path).read_bytes()
            (tmp_path / "backup" / one.path).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
            with pytest.raises(CorruptFileError, match="not what was copied"):
                restore_files(tmp_path / "backup", nowhere(tmp_path), progress=quiet)
            (tmp_path / "backup" / one.path).write_bytes(whole)
    (tmp_path / "backup" / made.files[0].path).unlink()
    with pytest.raises(CorruptFileError, match="is missing"):
        restore_files(tmp_path / "backup", nowhere(tmp_path), progress=quiet)
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "lake").exists()


def test_an_interrupted_one_is_none(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(store, tmp_path / "backup")

    def full(*arguments: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(backup_module, "_copy", full)
    with pytest.raises(OSError, match="no space"):
        saved(store, tmp_path / "backup")
    with pytest.raises(TerminalError, match="no whole backup"):
        read_backup(tmp_path / "backup")
    monkeypatch.undo()
    assert saved(store, tmp_path / "backup") == verify(tmp_path / "backup", progress=quiet)


def test_a_directory_of_other_things_is_left_alone(store: Store, tmp_path: Path) -> None:
    other = tmp_path / "home-of-somebody"
    (other / "landing").mkdir(parents=True)
    for file in (other / "letter.txt", other / "landing" / "photo.jpg"):
        file.write_text("mine")
    with pytest.raises(TerminalError, match="neither empty nor a backup"):
        saved(store, other)
    assert sorted(path.name for path in other.rglob("*")) == ["landing", "letter.txt", "photo.jpg"]


def test_nothing_is_overwritten(store: Store, tmp_path: Path) -> None:
    saved(store, tmp_path / "backup")
    with pytest.raises(TerminalError, match="overwrites nothing"):
        restore_files(tmp_path / "backup", places(store), progress=quiet)
    shutil.rmtree(tmp_path / "backup")
    with pytest.raises(TerminalError, match="no whole backup"):
        restore_files(tmp_path / "backup", nowhere(tmp_path), progress=quiet)
