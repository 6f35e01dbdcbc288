"""Which entities were erased, and when: a file each below the data directory, outside the database and its backups.

It is written before anything is taken away, and stays: whoever reads landed rows leaves out those of an erased entity
that had landed by then, also those that a restored backup brings back. What stays is a keyed hash; the entity's id
itself stands in the file only until the erasure has been carried out.
"""

import fcntl
import hmac
import os
import secrets
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import groupby
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute

from featurestore.entity_id import entity_id
from featurestore.errors import CorruptFileError, FormatError, TransientError
from featurestore.landing.batch import to_micros
from featurestore.landing.dead_letters import DeadLetter, may_name
from featurestore.landing.disk import TEMPORARY, DiskStorage, make_directories

pc: Any = pyarrow.compute  # the stubs do not know that kernels take scalars too

FORMAT = 1
KEY = "key"
_LANDED_FILES, _WRITING = ".landed.lock", ".lock"
_SUFFIX = ".json"
_POLL_S = 0.2


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """An entity whose rows that had landed at a time are gone, or are to go. Times are microseconds since 1970."""

    format: int = FORMAT
    entity: str
    key: tuple[str, ...]  # its columns in the sources
    sources: tuple[str, ...]
    entity_hash: str
    erased_at: int
    entity_id: str = ""  # until it was carried out
    settled: bool = False  # nothing that had read the rows before can still be on its way

    @property
    def name(self) -> str:
        return f"{self.erased_at:020d}.{self.entity_hash[:16]}{_SUFFIX}"


class Erasures:
    """The erasures of one data directory; thread-safe, and what other processes add is seen."""

    def __init__(self, directory: Path) -> None:
        self._storage = DiskStorage(directory)
        self._lock = threading.Lock()
        self._state: int | None = None
        self._known: tuple[Erasure, ...] = ()

    def all(self) -> Sequence[Erasure]:
        """Oldest first.

        Raises:
            CorruptFileError, FormatError: a file cannot be read.
        """
        with self._lock:
            state = self._storage.state("")
            if state is None or state != self._state:
                names = sorted(name for name in self._storage.names("") if name.endswith(_SUFFIX))
                self._known, self._state = tuple(self._read(name) for name in names), state
            return self._known

    def hash_of(self, entity: str, text: str) -> str:
        """What an entity's id is known by here."""
        return self._hasher(entity)(text)

    def decide(self, entity: str, key: tuple[str, ...], sources: Iterable[str], text: str, now: datetime) -> Erasure:
        """The erasure of an entity as of `now`, durable; one that has not been carried out yet is gone on with."""
        with self._locked(_WRITING):
            hashed = self.hash_of(entity, text)
            for known in self.all():
                if known.entity_hash == hashed and known.entity_id:
                    return known
            made = Erasure(
                entity=entity,
                key=key,
                sources=tuple(sources),
                entity_hash=hashed,
                erased_at=to_micros(now),
                entity_id=text,
            )
            self._create(made.name, msgspec.json.encode(made))
            return made

    def note(self, erasure: Erasure) -> None:
        """Write down what has become of an erasure."""
        with self._locked(_WRITING):
            for name in self._storage.names(""):
                if name.endswith(TEMPORARY):  # of one that was killed; it may hold an id
                    self._storage.remove(name)
            with self._storage.writing(erasure.name) as file:
                file.write(msgspec.json.encode(erasure))
                self._storage.replace(file, erasure.name)

    def covering(self, entity: str, texts: Iterable[str]) -> Mapping[str, Erasure]:
        """The last erasure of each of these ids that were ever erased."""
        last = {one.entity_hash: one for one in self.all() if one.entity == entity}
        if not last:
            return {}
        hash_of = self._hasher(entity)
        found = {text: last.get(hash_of(text)) for text in texts}
        return {text: one for text, one in found.items() if one is not None}

    def concern(self, source: str, landed_at: datetime) -> bool:
        """Whether anything of a source was erased that may have landed by a time."""
        at = to_micros(landed_at)
        return any(one.erased_at >= at and source in one.sources for one in self.all())

    def erased(self, source: str, rows: pa.Table, landed_at: datetime) -> pa.BooleanArray | None:
        """Which landed rows of a source are gone; None where that is none for sure."""
        found: pa.BooleanArray | None = None
        for entity, key, hashes in self._of(source, landed_at):
            mask = self._mask(entity, key, hashes, rows)
            found = mask if found is None else pc.or_(found, mask)
        return found

    def erased_letters(self, source: str, letters: Sequence[DeadLetter], landed_at: datetime) -> list[bool]:
        """Which dead letters of a source are gone: those that name an erased entity, by their columns or bytes."""
        found = [False] * len(letters)
        for entity, key, hashes in self._of(source, landed_at):
            hash_of = self._hasher(entity)
            for number, letter in enumerate(letters):
                found[number] |= any(hash_of(text) in hashes for text in may_name(letter, key))
        return found

    @contextmanager
    def alone(self, *, wait_s: float = 600.0) -> Generator[None]:
        """While one process takes landed rows away, no other works on landed files, except to land new ones.

        Raises:
            TransientError: it goes on for longer than `wait_s`.
        """
        with self._locked(_LANDED_FILES, wait_s):
            yield

    @contextmanager
    def _locked(self, name: str, wait_s: float = 60.0) -> Generator[None]:
        make_directories(self._storage.root, self._storage.root.parent)
        handle = os.open(self._storage.root / name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(handle, monotonic() + wait_s, self._storage.address)
            yield
        finally:
            os.close(handle)

    def _of(self, source: str, landed_at: datetime) -> list[tuple[str, tuple[str, ...], frozenset[str]]]:
        """(entity, key, hashes) of what was erased of a source at or after a time."""
        at = to_micros(landed_at)
        found = [one for one in self.all() if source in one.sources and one.erased_at >= at]
        by_kind: Callable[[Erasure], tuple[str, tuple[str, ...]]] = lambda one: (one.entity, one.key)  # noqa: E731
        return [
            (entity, key, frozenset(one.entity_hash for one in group))
            for (entity, key), group in groupby(sorted(found, key=by_kind), key=by_kind)
        ]

    def _mask(self, entity: str, key: tuple[str, ...], hashes: frozenset[str], rows: pa.Table) -> pa.BooleanArray:
        ids = key_texts_of(rows, key).dictionary_encode()
        texts: Any = ids.dictionary.to_pylist()
        hash_of = self._hasher(entity)
        hit = pa.array([hash_of(text) in hashes for text in texts], pa.bool_())
        return pc.fill_null(pc.take(hit, ids.indices), False)

    def _hasher(self, entity: str) -> Callable[[str], str]:
        """What `hash_of` says, for many ids: the key is read once."""
        key = self._key()
        return lambda text: hmac.digest(key, f"{entity}\0{text}".encode(), "sha256").hex()

    def _key(self) -> bytes:
        while True:
            try:
                return (self._storage.root / KEY).read_bytes()
            except FileNotFoundError:
                self._create(KEY, secrets.token_bytes(32))

    def _create(self, name: str, data: bytes) -> None:
        with self._storage.writing(name) as file:
            file.write(data)
            self._storage.create(file, name)

    def _read(self, name: str) -> Erasure:
        path = self._storage.root / name
        try:
            erasure = msgspec.json.decode(path.read_bytes(), type=Erasure)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise CorruptFileError(f"{path} is damaged: {error}; who was erased must be known") from error
        if erasure.format > FORMAT:
            raise FormatError(f"{path} has format {erasure.format}, this version reads up to {FORMAT}; upgrade it")
        return erasure


def key_texts_of(rows: pa.Table, key: Sequence[str]) -> pa.Array:
    """The entity id of each landed row; null where a part of the key is missing."""
    if any(name not in rows.column_names for name in key):
        return pa.nulls(rows.num_rows, pa.string())
    if len(key) == 1:
        return rows[key[0]].combine_chunks().cast(pa.string())
    parts = zip(*(rows[name].to_pylist() for name in key), strict=True)
    return pa.array([None if None in one else entity_id(one) for one in parts], pa.string())


def _lock(handle: int, until: float, where: str) -> None:
    waiting = threading.Event()
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() > until:
                raise TransientError(f"another process erases, or tends landed files ({where}); try again") from None
            waiting.wait(_POLL_S)
        else:
            return
