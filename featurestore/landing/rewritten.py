"""Files that have taken the place of landed ones: `<start>.r<n>.parquet`, of which the newest (largest n) counts.

The footer lists the batches that it holds, each with what its own file said of it, so that whoever asks sees the same
batches as before.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import pyarrow as pa

from featurestore.errors import CorruptFileError
from featurestore.landing import parquet
from featurestore.landing.batch import Batch
from featurestore.landing.storage import Storage

_NAME = re.compile(r"(\d{20})\.r(\d+)\.parquet")


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A file and the batches that it holds, in order, one after the other; `left` are the rows that it has of each."""

    path: str
    batches: tuple[Batch, ...]
    left: tuple[int, ...]

    def rows(self, batch: Batch, table: pa.Table) -> pa.Table:
        """The rows of one batch out of the file's."""
        for one, rows in zip(self.batches, self.parts(table), strict=True):
            if one.batch_id == batch.batch_id:
                return rows
        raise KeyError(batch.batch_id)

    def parts(self, table: pa.Table) -> list[pa.Table]:
        """The rows of each batch."""
        ends = accumulate(self.left)
        return [table.slice(end - rows, rows) for end, rows in zip(ends, self.left, strict=True)]


def newest(names: Iterable[str]) -> dict[int, str]:
    """The file that counts at each start."""
    found: dict[int, tuple[int, str]] = {}
    for match in map(_NAME.fullmatch, names):
        if match:
            start, revision = int(match[1]), int(match[2])
            found[start] = max(found.get(start, (0, "")), (revision, match[0]))
    return {start: name for start, (_, name) in found.items()}


def start_of(name: str) -> int | None:
    """Where a rewritten file begins; None for any other name."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def read_rewritten(storage: Storage, path: str) -> Rewritten:
    """What the footer says. Raises as `publish.read_batch`."""
    with storage.open(path) as file:
        metadata = parquet.read_metadata(file, f"{storage.address}/{path}")
    batches = tuple(_batch(one) for one in metadata["batches"])
    return Rewritten(path, batches, tuple(one.get("left", one["rows"]) for one in metadata["batches"]))


def read_rows(storage: Storage, path: str) -> pa.Table:
    """All rows, every byte checked."""
    with storage.open(path) as file:
        return parquet.read(file, f"{storage.address}/{path}")


class RewrittenFiles:
    """Batches whose own file is gone, found in the file that holds them now."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._opened: tuple[Rewritten, pa.Table] | None = None  # the batches of a file are read one after the other

    def find(self, batch_id: str) -> tuple[Rewritten, Batch]:
        """Raises KeyError."""
        chain, _, name = batch_id.rpartition("/")
        start, files = name.partition(".")[0], newest(self._storage.names(chain))
        before = [one for one in files if start.isdigit() and one <= int(start)]
        if before:
            found = read_rewritten(self._storage, f"{chain}/{files[max(before)]}")
            for batch in found.batches:
                if batch.batch_id == batch_id:
                    return found, batch
        raise KeyError(batch_id)

    def rows(self, batch: Batch) -> pa.Table | None:
        """None where nothing holds it."""
        opened = self._opened
        if opened is None or batch not in opened[0].batches:
            try:
                found, _ = self.find(batch.batch_id)
            except KeyError:
                return None
            opened = self._opened = found, read_rows(self._storage, found.path)
        return opened[0].rows(batch, opened[1])

    def paths(self, batches: Sequence[Batch]) -> list[str]:
        """The files of batches of one chain: their own, or those that have taken their place."""
        chain = batches[0].chain
        files = newest(self._storage.names(chain)) if "/upload=" not in chain else {}
        found: list[str] = []
        until = -1
        for batch in sorted(batches, key=lambda one: one.start):
            if batch.start in files:
                rewritten = read_rewritten(self._storage, f"{chain}/{files[batch.start]}")
                found.append(rewritten.path)
                until = rewritten.batches[-1].end
            elif batch.start >= until:
                found.append(batch.batch_id)
        return found


def rewrite(storage: Storage, chain: str, batches: Sequence[Batch], tables: Sequence[pa.Table]) -> Rewritten:
    """Write a file for `batches`, which follow one another in `chain` and have one schema; durable and verified.

    Raises:
        CorruptFileError: what was read back is not what was written; the file is gone again.
    """
    start, names = batches[0].start, storage.names(chain)
    previous = newest(names).get(start, "")
    revision = int(previous.split(".r")[1].removesuffix(".parquet")) + 1 if previous else 1
    path = f"{chain}/{start:020d}.r{revision}.parquet"
    rows = pa.concat_tables(tables)
    made = Rewritten(path, tuple(batches), tuple(table.num_rows for table in tables))
    with storage.writing(path) as file:
        parquet.write(file, rows, to_metadata(made))
        if not storage.create(file, path):
            raise CorruptFileError(f"{storage.address}/{path} was made by somebody else at the same time")
    if read_rewritten(storage, path) != made or not read_rows(storage, path).equals(rows):
        storage.remove(path)
        raise CorruptFileError(f"{storage.address}/{path} cannot be read back as it was written")
    return made


def to_metadata(rewritten: Rewritten) -> dict[str, Any]:
    """What the file says of itself."""
    each = zip(rewritten.batches, rewritten.left, strict=True)
    return {"batches": [{**_metadata(batch), "left": left} for batch, left in each]}


def _metadata(batch: Batch) -> dict[str, Any]:
    return {**batch.to_metadata(), "batch_id": batch.batch_id, "digest": batch.digest, "bytes": batch.bytes}


def _batch(metadata: Mapping[str, Any]) -> Batch:
    return Batch.from_metadata(
        metadata["batch_id"], {**metadata, "replaces": metadata["digest"]}, size_bytes=metadata["bytes"]
    )
