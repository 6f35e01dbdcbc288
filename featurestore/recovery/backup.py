"""Backups: every file of the landing zone and the lake, from which the database is made again, and who was erased.

Their files do not change, so a backup can be made while everything runs, and a second one into the same directory
copies what is new; after an erasure, which does change them, it copies everything. `backup.json` is written last and
lists every file with its digest: without it there is no backup.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from featurestore.errors import CorruptFileError, FormatError, TerminalError, TransientError
from featurestore.landing.disk import DiskStorage
from featurestore.landing.erasures import KEY
from featurestore.landing.storage import Storage, open_storage
from featurestore.offline.manifest import MANIFEST
from featurestore.settings import Settings

FORMAT = 1
LISTING = "backup.json"
UNFINISHED = "backup.unfinished"  # stands in its place while files are copied
LANDING, LAKE, ERASURES = "landing", "lake", "erasures"
_CHUNK_BYTES = 1 << 20
_TRIES = 10

Progress = Callable[[str, int, int], None]


class SavedFile(msgspec.Struct, frozen=True):
    """A file of a backup, by its path below the backup's directory."""

    path: str
    bytes: int
    sha256: str


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds."""

    format: int = FORMAT
    made_at: datetime
    files: tuple[SavedFile, ...]


@dataclass(frozen=True, slots=True)
class Places:
    """What a backup is made of, or is brought back to."""

    landing: Storage
    lake: Path
    erasures: Path

    @classmethod
    def of(cls, settings: Settings) -> "Places":
        return cls(open_storage(settings), settings.lake_dir, settings.erasures_dir)


def back_up(places: Places, directory: Path, now: datetime, *, progress: Progress) -> Backup:
    """Copy what is not in `directory` yet, read back what was copied, remove what is no longer there, list it all.

    The lake comes after the landing zone: rows leave the latter once they are in the former, never the other way.

    Raises:
        TerminalError: the directory holds something else; nothing was changed.
        TransientError: files come and go faster than they are copied.
    """
    known = _unchanged(directory, places.erasures)
    _begin(directory)
    target = DiskStorage(directory)
    files = [
        *_copy_all(DiskStorage(places.erasures), target, ERASURES, {}, progress),
        *_copy_all(places.landing, target, LANDING, known, progress),
        *_copy_all(DiskStorage(places.lake), target, LAKE, known, progress),
    ]
    listed = {one.path for one in files}
    there = [path for name in (LANDING, LAKE, ERASURES) for path in (directory / name).rglob("*") if path.is_file()]
    for path in there:
        if path.relative_to(directory).as_posix() not in listed:
            path.unlink()
    backup = Backup(made_at=now, files=tuple(files))
    with target.writing(LISTING) as file:
        file.write(msgspec.json.format(msgspec.json.encode(backup)))
        target.create(file, LISTING)
    (directory / UNFINISHED).unlink()
    return backup


def read_backup(directory: Path) -> Backup:
    """The listing of a backup.

    Raises:
        TerminalError: there is no (whole) backup.
        FormatError: a newer version made it.
    """
    try:
        data = (directory / LISTING).read_bytes()
        backup = msgspec.json.decode(data, type=Backup)
    except (FileNotFoundError, NotADirectoryError):
        raise TerminalError(f"{directory} holds no whole backup: there is no {LISTING}") from None
    except msgspec.MsgspecError as error:
        raise CorruptFileError(f"{directory / LISTING} is damaged: {error}") from error
    if backup.format > FORMAT:
        raise FormatError(f"{directory} has format {backup.format}, this version reads up to {FORMAT}; upgrade")
    return backup


def verify(directory: Path, *, progress: Progress) -> Backup:
    """Read every byte of a backup.

    Raises:
        CorruptFileError: a file is missing or not what was copied.
    """
    backup, storage = read_backup(directory), DiskStorage(directory)
    for number, one in enumerate(backup.files):
        progress("verify", number, len(backup.files))
        try:
            with storage.open(one.path) as file:
                found = _digest(file)
        except FileNotFoundError:
            raise CorruptFileError(f"{directory / one.path} is missing") from None
        if found != (one.bytes, one.sha256):
            raise CorruptFileError(f"{directory / one.path} is not what was copied into the backup")
    progress("verify", len(backup.files), len(backup.files))
    return backup


def restore_files(directory: Path, places: Places, *, progress: Progress) -> Backup:
    """Copy a backup, which is verified first, to where there is no landing zone and no lake.

    Who was erased since it was made stays so: of the erasures, it brings back what is not there.

    Raises:
        CorruptFileError, TerminalError: it is damaged, or there is something already; nothing was changed.
    """
    backup = verify(directory, progress=progress)
    source, erasures = DiskStorage(directory), DiskStorage(places.erasures)
    targets = {LANDING: places.landing, LAKE: DiskStorage(places.lake), ERASURES: erasures}
    for where in (LANDING, LAKE):
        if next(_paths(targets[where]), None) is not None:
            address = targets[where].address
            raise TerminalError(f"there is something in {address}; move it away first, a restore overwrites nothing")
    _check_key(source, erasures)
    there = set(erasures.names(""))
    for number, one in enumerate(sorted(backup.files, key=_manifests_last)):
        progress("restore", number, len(backup.files))
        where, _, path = one.path.partition("/")
        if where != ERASURES or path not in there:
            _copy(source, one.path, targets[where], path)
    progress("restore", len(backup.files), len(backup.files))
    return backup


def _begin(directory: Path) -> None:
    """Make the directory, and mark it: until it is whole again, it is no backup."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    names = {path.name for path in directory.iterdir()}
    if names and not names & {LISTING, UNFINISHED}:
        raise TerminalError(f"{directory} is neither empty nor a backup; name a directory of its own")
    (directory / UNFINISHED).touch()
    (directory / LISTING).unlink(missing_ok=True)


def _check_key(source: Storage, erasures: Storage) -> None:
    """Raises TerminalError where both know of erasures, and are not of one store."""
    keys: list[bytes] = []
    for storage, path in ((source, f"{ERASURES}/{KEY}"), (erasures, KEY)):
        with suppress(FileNotFoundError), storage.open(path) as file:
            keys.append(file.read())
    if len(set(keys)) > 1:
        raise TerminalError(f"the erasures in {erasures.address} are not of the store of this backup")


def _manifests_last(file: SavedFile) -> bool:
    return file.path.endswith(".json")


def _copy_all(
    source: Storage, target: DiskStorage, name: str, known: dict[str, SavedFile], progress: Progress
) -> list[SavedFile]:
    """Copy until a whole listing was copied: files that are compacted or removed meanwhile make us list again."""
    done: dict[str, SavedFile] = {}
    for _ in range(_TRIES):
        paths = sorted(_paths(source))
        try:
            for number, path in enumerate(paths):
                progress(f"copy {name}", number, len(paths))
                saved = f"{name}/{path}"
                if saved not in done or path == MANIFEST:
                    done[saved] = _save(source, path, target, saved, known)
        except FileNotFoundError:
            continue
        progress(f"copy {name}", len(paths), len(paths))
        return [done[f"{name}/{path}"] for path in paths]
    raise TransientError(f"files of {source.address} come and go faster than they are copied; try again")


def _save(source: Storage, path: str, target: DiskStorage, saved: str, known: dict[str, SavedFile]) -> SavedFile:
    """Copy a file, unless it was copied earlier: but for the lake's manifest, files never change."""
    if saved in known and path != MANIFEST and (target.root / saved).is_file():
        return known[saved]
    size_bytes, sha256 = _copy(source, path, target, saved)
    with target.open(saved) as file:
        if _digest(file) != (size_bytes, sha256):
            raise CorruptFileError(f"{target.root / saved} cannot be read back as it was written")
    return SavedFile(saved, size_bytes, sha256)


def _copy(source: Storage, path: str, target: Storage, to: str) -> tuple[int, str]:
    """Returns the size and digest of what was read."""
    target.remove(to)
    digest, size_bytes = hashlib.sha256(), 0
    with source.open(path) as original, target.writing(to) as copy:
        while chunk := original.read(_CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
            copy.write(chunk)
        target.create(copy, to)
    return size_bytes, digest.hexdigest()


def _digest(file: BinaryIO) -> tuple[int, str]:
    digest = hashlib.file_digest(file, "sha256")  # pyright: ignore[reportArgumentType]
    return file.seek(0, os.SEEK_END), digest.hexdigest()


def _paths(storage: Storage, directory: str = "") -> Iterator[str]:
    """Every file below a directory, but for those that are being written and locks."""
    for name in storage.names(directory):
        if not name.startswith("."):
            yield f"{directory}/{name}" if directory else name
    for name in storage.directories(directory):
        yield from _paths(storage, f"{directory}/{name}" if directory else name)


def _unchanged(directory: Path, erasures: Path) -> dict[str, SavedFile]:
    """What an earlier backup has, if nothing was erased since."""
    saved = {one.path: one for one in _listed(directory)}
    done = {f"{ERASURES}/{name}" for name in DiskStorage(erasures).names("") if not name.startswith(".")}
    for path in done:
        one, name = saved.get(path), path.partition("/")[2]
        with DiskStorage(erasures).open(name) as file:
            if one is None or _digest(file) != (one.bytes, one.sha256):
                return {}
    return saved


def _listed(directory: Path) -> tuple[SavedFile, ...]:
    try:
        return read_backup(directory).files
    except TerminalError:
        return ()
