"""Erased rows, found in landed files and taken out of them.

A file is replaced in one step by one of the same name without these rows, which says whose place it takes: so no name
is ever free for a writer that is late, and manifests, which are created once, stay as they are. Every file that holds
landed rows is looked at, also those that a crash has left and nobody reads. By one process at a time
(`Erasures.alone`); doing it again changes nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from featurestore.landing import dead_letters, parquet, rewritten
from featurestore.landing.batch import Batch
from featurestore.landing.chain import BATCH_FILE
from featurestore.landing.erasures import Erasures
from featurestore.landing.publish import read_batch
from featurestore.landing.rewritten import Rewritten, read_rewritten
from featurestore.landing.storage import Storage
from featurestore.landing.uploads import UploadLanding, read_manifest


@dataclass(frozen=True, slots=True)
class TakenOut:
    """What an erasure took out of landed files; a row that lies in several counts for each."""

    files: int = 0
    rows: int = 0
    dead_letters: int = 0

    def __add__(self, other: "TakenOut") -> "TakenOut":
        return TakenOut(self.files + other.files, self.rows + other.rows, self.dead_letters + other.dead_letters)


def find_erased(storage: Storage, erasures: Erasures, source: str) -> dict[str, tuple[int, ...]]:
    """The erased rows that landed files of a source still hold: sequences by batch.

    Raises:
        CorruptFileError: a file is damaged.
    """
    columns = list({"sequence", *(name for one in erasures.all() if source in one.sources for name in one.key)})
    found: dict[str, set[int]] = {}
    for file in _files(storage, source):
        if not erasures.concern(source, file.landed_first):
            continue
        with storage.open(file.path) as opened:
            there = set(pq.read_schema(opened).names)  # pyright: ignore[reportArgumentType]  # files will do
            opened.seek(0)
            rows = pq.ParquetFile(opened).read([name for name in columns if name in there])
        for batch, part in zip(file.batches, file.parts(rows), strict=True):
            erased = erasures.erased(source, part, batch.created_at)
            if erased is not None and pc.any(erased).as_py():
                sequences: Any = part.filter(erased)["sequence"].to_pylist()
                found.setdefault(batch.batch_id, set()).update(sequences)
    return {batch_id: tuple(sorted(sequences)) for batch_id, sequences in found.items()}


def take_out(storage: Storage, erasures: Erasures, source: str) -> TakenOut:
    """Replace every landed file of a source that holds an erased row or dead letter.

    Raises:
        CorruptFileError: a file is damaged; those before it are done.
        TransientError: the storage does not answer, or is full; it can be gone on with.
    """
    done = TakenOut()
    for chain in _chains(storage, source):
        landed_at: dict[str, datetime] = {}
        for file in _files_of(storage, chain):
            landed_at |= {one.dead_letters: one.created_at for one in file.batches if one.dead_letters}
            done += _take_out_rows(storage, erasures, file)
        for name in sorted(landed_at.keys() & set(storage.names(chain))):
            done += _take_out_letters(storage, erasures, source, f"{chain}/{name}", landed_at[name])
        if "/upload=" in chain and (manifest := read_manifest(storage, chain)) is not None:
            UploadLanding(storage, source, manifest.upload_id).sweep(manifest)
    return done


@dataclass(frozen=True, slots=True)
class _File:
    """A file of landed rows: of one batch, or of several that were put together."""

    path: str
    batches: tuple[Batch, ...]
    rewritten: Rewritten | None = None

    @property
    def landed_first(self) -> datetime:
        return min(batch.created_at for batch in self.batches)

    def parts(self, rows: pa.Table) -> Sequence[pa.Table]:
        """The rows of each batch."""
        return self.rewritten.parts(rows) if self.rewritten else [rows]

    def says(self, parts: Sequence[pa.Table]) -> Mapping[str, Any]:
        """What else the file says of itself once it has only these rows of each batch."""
        if self.rewritten is None:
            return {}
        return rewritten.to_metadata(replace(self.rewritten, left=tuple(part.num_rows for part in parts)))


def _take_out_rows(storage: Storage, erasures: Erasures, file: _File) -> TakenOut:
    source, name = file.batches[0].source, f"{storage.address}/{file.path}"
    if not erasures.concern(source, file.landed_first):
        return TakenOut()
    with storage.open(file.path) as opened:
        rows = parquet.read(opened, name)
        opened.seek(0)
        said = parquet.read_metadata(opened, name)
    left = [_left(erasures, batch, part) for batch, part in zip(file.batches, file.parts(rows), strict=True)]
    gone = rows.num_rows - sum(part.num_rows for part in left)
    if not gone:
        return TakenOut()
    kept = {name: value for name, value in said.items() if name not in {"format", "digest"}}
    with storage.writing(file.path) as made:
        parquet.write(made, pa.concat_tables(left), {**kept, **file.says(left)})
        storage.replace(made, file.path)
    return TakenOut(files=1, rows=gone)


def _left(erasures: Erasures, batch: Batch, rows: pa.Table) -> pa.Table:
    erased = erasures.erased(batch.source, rows, batch.created_at)
    return rows if erased is None else rows.filter(pc.invert(erased))


def _take_out_letters(storage: Storage, erasures: Erasures, source: str, path: str, landed_at: datetime) -> TakenOut:
    letters = dead_letters.read(storage, path)
    erased = erasures.erased_letters(source, letters, landed_at)
    if not any(erased):
        return TakenOut()
    dead_letters.rewrite(storage, path, [one for one, gone in zip(letters, erased, strict=True) if not gone])
    return TakenOut(files=1, dead_letters=sum(erased))


def _files(storage: Storage, source: str) -> Iterator[_File]:
    for chain in _chains(storage, source):
        yield from _files_of(storage, chain)


def _chains(storage: Storage, source: str) -> Iterator[str]:
    for name in storage.directories(source):
        if name.startswith("gen="):
            yield from (f"{source}/{name}/{partition}" for partition in storage.directories(f"{source}/{name}"))
        else:
            yield f"{source}/{name}"


def _files_of(storage: Storage, chain: str) -> Iterator[_File]:
    """In the order of their names; of an upload, the parts of one that has landed."""
    names = sorted(storage.names(chain))
    if "/upload=" in chain:
        manifest = read_manifest(storage, chain)
        batches = manifest.batches(chain) if manifest else []
        yield from (_File(one.batch_id, (one,)) for one in batches if one.batch_id.rpartition("/")[2] in names)
        return
    for name in names:
        path = f"{chain}/{name}"
        if BATCH_FILE.fullmatch(name):
            yield _File(path, (read_batch(storage, path),))
        elif rewritten.start_of(name) is not None:
            found = read_rewritten(storage, path)
            yield _File(path, found.batches, found)
