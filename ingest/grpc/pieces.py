"""What readers of uploaded files hand on."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from featurestore.errors import TerminalError
from featurestore.landing.columns import Door, short
from featurestore.landing.dead_letters import DeadLetter
from featurestore.landing.schema import landed_schema
from ingest.long_form import Line, Pivot
from ingest.records import JsonDecoder

_PIECE_ROWS = 8_192
_PIECE_BYTES = 8 << 20


class FileRefusedError(TerminalError):
    """The file as a whole does not fit its source; nothing of it is landed."""

    def __init__(self, reason: str) -> None:
        super().__init__(short(reason))  # it may quote the file


@dataclass(frozen=True, slots=True)
class Piece:
    """Some consecutive rows of a file, [first_row, end_row), counted from 0 without header and blank lines."""

    first_row: int
    end_row: int
    rows: pa.Table  # the good ones, in the landed schema
    dead: Sequence[DeadLetter]  # the others
    future: int = 0  # how many of them are ahead of the clock
    unknown_members: int = 0

    @classmethod
    def of_dead(cls, dead: Sequence[DeadLetter], door: Door) -> "Piece":
        """Lines that are no part of a row; where rows begin and end is said by those that have some."""
        return cls(first_row=0, end_row=0, rows=landed_schema(door.source).empty_table(), dead=dead)


def check_columns(names: list[str], door: Door) -> None:
    """Refuse a file whose columns are not the source's."""
    source = door.source
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise FileRefusedError(f"the column {twice!r} stands twice")
    needed = [source.timestamp, *(column.name for column in source.columns.values() if not column.nullable)]
    if missing := [name for name in needed if name not in names]:
        there = ", ".join(names[:20]) or "nothing"
        raise FileRefusedError(f"source {source.name!r} needs the column {', '.join(missing)}; the file has {there}")
    unknown = [name for name in names if name not in source.times and name not in source.columns]
    if unknown and source.unknown_fields == "reject":
        raise FileRefusedError(f"source {source.name!r} does not know the column {', '.join(unknown[:20])}")


class Pieces:
    """Collects JSON records and decodes them piece by piece."""

    def __init__(self, door: Door, now: Callable[[], datetime]) -> None:
        self._decoder, self._now = JsonDecoder(door), now
        self._first_row = self.end_row = 0
        self._raws: list[bytes] = []
        self._records: list[bytes | None] = []
        self._sequences: list[int] = []
        self._dead: list[DeadLetter] = []
        self._bytes = 0

    def add(self, row: int, raw: bytes, record: bytes | str) -> Iterator[Piece]:
        """Take a row, after those before it: its JSON, or the reason why it has none."""
        if isinstance(record, str):
            self._dead.append(DeadLetter(row, record, raw))
        else:
            self._raws.append(raw)
            self._records.append(record)
            self._sequences.append(row)
        self.end_row = row + 1
        self._bytes += len(raw)
        if len(self._records) + len(self._dead) >= _PIECE_ROWS or self._bytes >= _PIECE_BYTES:
            yield from self.rest()

    def whole(self, rows: pa.Table, unknown_members: int) -> Iterator[Piece]:
        """Take rows that are decoded already, after those before them."""
        yield from self.rest()
        self._first_row, self.end_row = self.end_row, self.end_row + rows.num_rows
        yield Piece(
            first_row=self._first_row, end_row=self.end_row, rows=rows, dead=[], unknown_members=unknown_members
        )
        self._first_row = self.end_row

    def rest(self) -> Iterator[Piece]:
        if not self._records and not self._dead:
            return
        decoded = self._decoder.decode(self._records, self._sequences, self._now())
        dead = self._dead + [
            DeadLetter(self._sequences[one.row], one.reason, self._raws[one.row]) for one in decoded.rejections
        ]
        yield Piece(
            first_row=self._first_row,
            end_row=self.end_row,
            rows=decoded.rows,
            dead=sorted(dead, key=lambda one: one.sequence),
            future=decoded.future,
            unknown_members=decoded.unknown_members,
        )
        self._raws, self._records, self._sequences, self._dead, self._bytes = [], [], [], [], 0
        self._first_row = self.end_row


def pieces_of_records(records: Iterable[bytes], door: Door, now: Callable[[], datetime]) -> Iterator[Piece]:
    """JSON records, one a row."""
    pieces = Pieces(door, now)
    for row, record in enumerate(records):
        yield from pieces.add(row, record, record)
    yield from pieces.rest()


def pieces_of_lines(
    lines: Iterable[tuple[bytes, Line | str]], door: Door, now: Callable[[], datetime], directory: Path | None = None
) -> Iterator[Piece]:
    """Lines of the long form, each as it came and read, or why it cannot be; what does not fit in memory is kept in
    `directory` meanwhile. A line that cannot be read is a dead letter of its own, and so is a row that lacks a column.
    """
    with TemporaryDirectory(dir=directory) as scratch, closing(Pivot(door, Path(scratch))) as pivot:
        pieces = Pieces(door, now)
        dead: list[DeadLetter] = []
        for number, (raw, line) in enumerate(lines):
            refusal = line if isinstance(line, str) else pivot.add(number, line)
            if refusal:
                dead.append(DeadLetter(number, short(refusal), raw))
            if len(dead) == _PIECE_ROWS:
                yield Piece.of_dead(dead, door)
                dead = []
        if dead:
            yield Piece.of_dead(dead, door)
        for record in pivot.records():
            yield from pieces.add(record.line, record.json, record.json)
        yield from pieces.rest()
