"""What readers of uploaded files hand on."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from featurestore.errors import TerminalError
from featurestore.landing.dead_letters import DeadLetter
from ingest.columns import Door, short


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
    future: int  # how many of them are ahead of the clock
    unknown_members: int


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
