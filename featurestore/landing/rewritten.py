"""Files that have taken the place of landed ones: `<start>.r<n>.parquet`, of which the newest (largest n) counts.

The footer lists the batches that it holds, each with what its own file said of it, so that whoever asks sees the same
batches as before.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from featurestore.errors import CorruptFileError
from featurestore.landing import parquet
from featurestore.landing.batch import Batch
from featurestore.landing.storage import Storage

_NAME = re.compile(r"(\d{20})\.r(\d+)\.parquet")


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A file and the batches that it holds, in order, one after the other."""

    path: str
    batches: tuple[Batch, ...]

    def rows(self, batch: Batch, table: pa.Table) -> pa.Table:
        """The rows of one batch out of the file's."""
        first_row = 0
        for one in self.batches:
            if one.batch_id == batch.batch_id:
                return table.slice(first_row, one.rows)
            first_row += one.rows
        raise KeyError(batch.batch_id)


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
    return Rewritten(path, tuple(_batch(one) for one in metadata["batches"]))


def read_rows(storage: Storage, path: str) -> pa.Table:
    """All rows, every byte checked."""
    with storage.open(path) as file:
        return parquet.read(file, f"{storage.address}/{path}")


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
    with storage.writing(path) as file:
        parquet.write(file, rows, {"batches": [_metadata(one) for one in batches]})
        if not storage.create(file, path):
            raise CorruptFileError(f"{storage.address}/{path} was made by somebody else at the same time")
    made = Rewritten(path, tuple(batches))
    if read_rewritten(storage, path) != made or not read_rows(storage, path).equals(rows):
        storage.remove(path)
        raise CorruptFileError(f"{storage.address}/{path} cannot be read back as it was written")
    return made


def _metadata(batch: Batch) -> dict[str, Any]:
    return {**batch.to_metadata(), "batch_id": batch.batch_id, "digest": batch.digest, "bytes": batch.bytes}


def _batch(metadata: Mapping[str, Any]) -> Batch:
    return Batch.from_metadata(metadata["batch_id"], metadata, size_bytes=metadata["bytes"])
