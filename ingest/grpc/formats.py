"""CSV and NDJSON files → pieces of rows; memory does not depend on the size of a file.

A file that does not fit its source is refused whole, a bad row is a dead letter of its own.
"""

import csv
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import chain, islice
from pathlib import Path

import msgspec

from featurestore.definitions.long_form import LONG_FORM, is_long_form
from featurestore.landing.columns import Door
from ingest.cells import cell_json
from ingest.grpc.blocks import Blocks
from ingest.grpc.pieces import FileRefusedError, Piece, Pieces, check_columns, pieces_of_lines, pieces_of_records
from ingest.grpc.plain_csv import PlainCsv
from ingest.long_form import Line, are_lines, cells_line, parse_line
from ingest.records import RECORD_BYTES

_OPENING_LINES = 100
csv.field_size_limit(RECORD_BYTES)  # as large as any record; the default is an eighth of it


def read_ndjson(path: Path, door: Door, now: Callable[[], datetime]) -> Iterator[Piece]:
    """One JSON object per line; the first of them tell whether they are rows or lines of the long form."""
    with path.open("rb") as file:
        records = (record for line in Blocks(file) if (record := line.strip(b" \t\r\n")))
        opening = list(islice(records, _OPENING_LINES))
        if opening and not opening[0].startswith(b"{"):
            raise FileRefusedError("not NDJSON: the first line is not a JSON object")
        records = chain(opening, records)
        if are_lines(opening):
            yield from pieces_of_lines(((record, parse_line(record)) for record in records), door, now, path.parent)
        else:
            yield from pieces_of_records(records, door, now)


def read_csv(path: Path, door: Door, now: Callable[[], datetime]) -> Iterator[Piece]:
    """A header and cells: each row is the JSON record of the same members, an empty cell an absent one."""
    with path.open("rb") as file:
        blocks = Blocks(file)
        rows = _Rows(blocks)
        header = rows.header()
        if is_long_form(header):
            yield from pieces_of_lines(_csv_lines(blocks, rows, header), door, now, path.parent)
            return
        check_columns(header, door)
        pieces, plain, to_json = Pieces(door, now), PlainCsv(header, door), _json_maker(header, door)
        while block := blocks.rest():
            if read := plain.read(block, pieces.end_row, now()):
                blocks.skip()
                yield from pieces.whole(*read)
            else:
                for raw, cells in rows.of_block(len(header)):
                    yield from pieces.add(pieces.end_row, raw, cells if isinstance(cells, str) else to_json(cells))
        yield from pieces.rest()


class _Rows:
    """The rows of a CSV file, each with the lines that it is made of: a quoted cell may span several.

    Where they make no row the first of them is refused, and reading goes on at the second: a quote that nothing closes
    costs no more than its own line. It is an iterator of lines, for the reader of `csv`.
    """

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._taken: list[bytes] = []
        self._again: deque[bytes] = deque()
        self._reader = csv.reader(self, strict=True)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._blocks)
        self._taken.append(line)
        return line.decode("utf-8", "surrogateescape")  # what is no UTF-8 is refused as a cell

    def header(self) -> list[str]:
        try:
            names = next(self._reader, [])
            "".join(names).encode()
        except csv.Error as error:
            raise FileRefusedError(f"the header is not CSV: {error}") from error
        except UnicodeEncodeError:
            raise FileRefusedError("the header is not valid UTF-8") from None
        return names

    def of_block(self, width: int) -> Iterator[tuple[bytes, list[str] | str]]:
        """The rows that begin in the block at hand: as they came, and as cells; or text, why there are none."""
        while self._again or self._blocks.in_block():
            self._taken.clear()
            if cells := self._next():  # a blank line is no row
                if len(cells) != width and not isinstance(cells, str):
                    cells = f"{len(cells)} cells, not {width}"
                yield b"".join(self._taken).rstrip(b"\r\n"), cells

    def _next(self) -> list[str] | str:
        try:
            return next(self._reader, [])
        except csv.Error as error:
            self._again.extendleft(reversed(self._taken[1:]))
            del self._taken[1:]
            return f"not CSV: {error}"


def _csv_lines(blocks: Blocks, rows: _Rows, header: list[str]) -> Iterator[tuple[bytes, Line | str]]:
    places = [header.index(name) for name in LONG_FORM]
    while blocks.rest():
        for raw, cells in rows.of_block(len(header)):
            yield raw, cells if isinstance(cells, str) else cells_line(*(cells[place] for place in places))


def _json_maker(header: list[str], door: Door) -> Callable[[list[str]], bytes | str]:
    """How a row of this file is written as JSON; text where it cannot be, saying why."""
    source = door.source
    plain = {column.name: column.dtype for column in source.columns.values() if column.dtype is not str}
    if source.timestamp_format != "rfc3339":
        plain |= dict.fromkeys(source.times, float)
    kinds = [(msgspec.json.encode(name) + b":", plain.get(name)) for name in header]

    def to_json(cells: list[str]) -> bytes | str:
        try:
            members = [name + cell_json(cell, kind) for (name, kind), cell in zip(kinds, cells, strict=True) if cell]
        except UnicodeEncodeError:
            return "not valid UTF-8"
        return b"{" + b",".join(members) + b"}"

    return to_json
