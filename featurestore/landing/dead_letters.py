"""Records that could not be landed: kept whole, with the reason, beside the batch that they came with."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import permutations
from typing import BinaryIO

import msgspec
import pyarrow as pa

from featurestore.entity_id import entity_id
from featurestore.errors import TerminalError
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

_WORDS = tuple(map(re.compile, (r"\w+", r"[^\s,;|\"'{}\[\]:]+", r"[^,;\n\r\t\"]+", r'"([^"]+)"')))
_FEW_WORDS = 40  # above it, a key of several columns is not looked for in bytes that are no JSON


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record that was refused; `raw` is what arrived, byte for byte."""

    sequence: int
    reason: str
    raw: bytes
    key: bytes | None = None


def write(storage: Storage, path: str, dead: Sequence[DeadLetter]) -> None:
    """Write a file of dead letters, durable; it counts only once a landed file or manifest names it."""
    with storage.writing(path) as file:
        _fill(file, dead)
        storage.create(file, path)


def rewrite(storage: Storage, path: str, left: Sequence[DeadLetter]) -> None:
    """Put those that are left in the place of a file of dead letters."""
    with storage.writing(path) as file:
        _fill(file, left)
        storage.replace(file, path)


def _fill(file: BinaryIO, dead: Sequence[DeadLetter]) -> None:
    columns = {
        "sequence": [one.sequence for one in dead],
        "reason": [one.reason for one in dead],
        "raw": [one.raw for one in dead],
        "key": [one.key for one in dead],
    }
    parquet.write(file, pa.table(columns, schema=SCHEMA), {"rows": len(dead)})


def read(storage: Storage, path: str) -> list[DeadLetter]:
    """The dead letters of a file.

    Raises:
        CorruptFileError: it is not the file that was written.
    """
    with storage.open(path) as file:
        return [DeadLetter(**row) for row in parquet.read(file, f"{storage.address}/{path}").to_pylist()]


def may_name(letter: DeadLetter, key: Sequence[str]) -> Iterator[str]:
    """The entity ids that a dead letter may be of.

    A JSON object that has the columns of the key is of one entity (or, in the long form, names it); of anything else,
    each word may be an id.
    """
    if letter.key is not None:
        yield letter.key.decode(errors="replace")
    record = _json_object(letter.raw)
    if "entity_id" in record:
        yield str(record["entity_id"])
    elif all(name in record for name in key):
        with suppress(TerminalError):
            yield entity_id([str(record[name]) for name in key])
    else:
        words = _words(letter.raw.decode(errors="replace"))
        combined = permutations(sorted(words), len(key)) if len(words) <= _FEW_WORDS else ()
        yield from words if len(key) == 1 else map(entity_id, combined)


def _json_object(raw: bytes) -> dict[str, object]:
    try:
        return msgspec.json.decode(raw, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}


def _words(text: str) -> set[str]:
    """What stands between separators, narrow and wide, and what stands between quotes."""
    return {word for pattern in _WORDS for word in pattern.findall(text)}
