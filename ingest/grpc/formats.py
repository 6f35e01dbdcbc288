"""CSV and NDJSON files → pieces of rows; memory does not depend on the size of a file.

A file that does not fit its source is refused whole, a bad row is a dead letter of its own.
"""

import csv
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from featurestore.landing.dead_letters import DeadLetter
from ingest.columns import Door
from ingest.grpc.pieces import FileRefusedError, Piece, check_columns
from ingest.records import RECORD_BYTES, JsonDecoder

_PIECE_ROWS = 8_192
_PIECE_BYTES = 8 << 20
_LINE_BYTES = 4 * RECORD_BYTES  # a longer one is no line of rows
_BOM = b"\xef\xbb\xbf"
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def read_ndjson(path: Path, door: Door, now: Callable[[], datetime]) -> Iterator[Piece]:
    """One JSON object per line."""
    pieces = _Pieces(door, now)
    with path.open("rb") as file:
        for line in _lines(file):
            if record := line.strip(b" \t\r\n"):
                if pieces.end_row == 0 and not record.startswith(b"{"):
                    raise FileRefusedError("not NDJSON: the first line is not a JSON object")
                yield from pieces.add(record, record)
        yield from pieces.rest()


def read_csv(path: Path, door: Door, now: Callable[[], datetime]) -> Iterator[Piece]:
    """A header and cells: each row is the JSON record of the same members, an empty cell an absent one."""
    pieces = _Pieces(door, now)
    with path.open("rb") as file:
        taken: list[bytes] = []  # the lines of the row at hand; a quoted cell may span several
        rows = csv.reader((_text(taken, line) for line in _lines(file)), strict=True)
        header = _header(rows, door)
        to_json = _json_maker(header, door)
        taken.clear()
        while (record := _record(rows, len(header), to_json)) is not None:
            if record:
                yield from pieces.add(b"".join(taken).rstrip(b"\r\n"), record)
            taken.clear()
        yield from pieces.rest()


def _lines(file: BinaryIO) -> Iterator[bytes]:
    first = True
    while line := file.readline(_LINE_BYTES + 1):
        if len(line) > _LINE_BYTES:
            raise FileRefusedError(f"a line is longer than {_LINE_BYTES} bytes")
        yield line.removeprefix(_BOM) if first else line
        first = False


def _text(taken: list[bytes], line: bytes) -> str:
    taken.append(line)
    return line.decode("utf-8", "surrogateescape")  # what is no UTF-8 is refused as a cell


def _record(rows: Iterator[list[str]], width: int, to_json: Callable[[list[str]], bytes | str]) -> bytes | str | None:
    """The next row as JSON, or why it has none; empty for a blank line, None at the end."""
    try:
        cells = next(rows, None)
    except csv.Error as error:
        return f"not CSV: {error}"
    if not cells:
        return None if cells is None else b""
    return to_json(cells) if len(cells) == width else f"{len(cells)} cells, not {width}"


def _header(rows: Iterator[list[str]], door: Door) -> list[str]:
    try:
        header = next(rows, [])
    except csv.Error as error:
        raise FileRefusedError(f"the header is not CSV: {error}") from error
    check_columns(header, door)
    return header


def _json_maker(header: list[str], door: Door) -> Callable[[list[str]], bytes | str]:
    """How a row of this file is written as JSON; text where it cannot be, saying why."""
    source = door.source
    plain = {column.name: column.dtype for column in source.columns.values() if column.dtype is not str}
    if source.timestamp_format != "rfc3339":
        plain |= dict.fromkeys(source.times, float)
    kinds = [(msgspec.json.encode(name) + b":", plain.get(name)) for name in header]

    def to_json(cells: list[str]) -> bytes | str:
        try:
            members = [name + _value(cell, kind) for (name, kind), cell in zip(kinds, cells, strict=True) if cell]
        except UnicodeEncodeError:
            return "not valid UTF-8"
        return b"{" + b",".join(members) + b"}"

    return to_json


def _value(cell: str, kind: type | None) -> bytes:
    """A cell as a JSON value; what does not look like its kind stays text, and is refused by the decoder."""
    if kind is bool and cell.lower() in {"true", "false"}:
        return cell.lower().encode()
    if kind in {int, float} and _NUMBER.fullmatch(cell):
        return cell.encode()
    return msgspec.json.encode(cell)


class _Pieces:
    """Collects records and decodes them piece by piece."""

    def __init__(self, door: Door, now: Callable[[], datetime]) -> None:
        self._decoder, self._now = JsonDecoder(door), now
        self.end_row = 0
        self._raws: list[bytes] = []
        self._records: list[bytes | None] = []
        self._sequences: list[int] = []
        self._dead: list[DeadLetter] = []
        self._bytes = 0

    def add(self, raw: bytes, record: bytes | str) -> Iterator[Piece]:
        """Take a row: its JSON, or the reason why it has none."""
        if isinstance(record, str):
            self._dead.append(DeadLetter(self.end_row, record, raw))
        else:
            self._raws.append(raw)
            self._records.append(record)
            self._sequences.append(self.end_row)
        self.end_row += 1
        self._bytes += len(raw)
        if len(self._records) + len(self._dead) >= _PIECE_ROWS or self._bytes >= _PIECE_BYTES:
            yield from self.rest()

    def rest(self) -> Iterator[Piece]:
        count = len(self._records) + len(self._dead)
        if count == 0:
            return
        decoded = self._decoder.decode(self._records, self._sequences, self._now())
        dead = self._dead + [
            DeadLetter(self._sequences[one.row], one.reason, self._raws[one.row]) for one in decoded.rejections
        ]
        yield Piece(
            first_row=self.end_row - count,
            end_row=self.end_row,
            rows=decoded.rows,
            dead=sorted(dead, key=lambda one: one.sequence),
            future=decoded.future,
            unknown_members=decoded.unknown_members,
        )
        self._raws, self._records, self._sequences, self._dead, self._bytes = [], [], [], [], 0
