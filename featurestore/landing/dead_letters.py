"""Records that could not be landed: kept whole, with the reason, beside the batch that they came with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from featurestore.landing import parquet

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


def write(path: Path, dead: Sequence[DeadLetter]) -> None:
    """Write and fsync a file of dead letters; it counts only once a landed file or manifest names it."""
    columns = {
        "sequence": [one.sequence for one in dead],
        "reason": [one.reason for one in dead],
        "raw": [one.raw for one in dead],
        "key": [one.key for one in dead],
    }
    parquet.write(path, pa.table(columns, schema=SCHEMA), {"rows": len(dead)})


def read(path: Path) -> list[DeadLetter]:
    table = parquet.read(path, parquet.read_metadata(path)["digest"])
    return [DeadLetter(**row) for row in table.to_pylist()]
