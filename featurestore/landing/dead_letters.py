"""Records that could not be landed: kept whole, with the reason, beside the batch that they came with."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from featurestore.landing import parquet
from featurestore.landing.storage import Storage

SCHEMA = pa.schema(
    [
        pa.field("sequence", pa.int64(), nullable=False),  # offset, or row of the original file
        pa.field("reason", pa.string(), nullable=False),
        pa.field("raw", pa.binary(), nullable=False),
        pa.field("key", pa.binary()),
    ]
)
SUFFIX = ".dead.parquet"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record that was refused; `raw` is what arrived, byte for byte."""

    sequence: int
    reason: str
    raw: bytes
    key: bytes | None = None


def write(storage: Storage, path: str, dead: Sequence[DeadLetter]) -> None:
    """Write a file of dead letters, durable; it counts only once a landed file or manifest names it."""
    columns = {
        "sequence": [one.sequence for one in dead],
        "reason": [one.reason for one in dead],
        "raw": [one.raw for one in dead],
        "key": [one.key for one in dead],
    }
    with storage.writing(path) as file:
        parquet.write(file, pa.table(columns, schema=SCHEMA), {"rows": len(dead)})
        storage.create(file, path)


def read(storage: Storage, path: str) -> list[DeadLetter]:
    """The dead letters of a file.

    Raises:
        CorruptFileError: it is not the file that was written.
    """
    with storage.open(path) as file:
        return [DeadLetter(**row) for row in parquet.read(file, f"{storage.address}/{path}").to_pylist()]
