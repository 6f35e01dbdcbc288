"""Which cells differ between two training sets of one spine: what late data changed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from featurestore.errors import TerminalError
from featurestore.training.spine import pc

NAMED_CELLS = 1_000  # at most so many are named; all are counted


@dataclass(frozen=True, slots=True)
class Cell:
    """One value that is another one now."""

    row: int
    column: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Difference:
    """How many cells of each column changed, and the first ones by row."""

    rows: int
    changed: Mapping[str, int]
    cells: tuple[Cell, ...]

    def __bool__(self) -> bool:
        return any(self.changed.values())


def difference(before: pa.Table, after: pa.Table) -> Difference:
    """Compare two tables of the same columns and rows; NULL equals NULL and NaN equals NaN.

    Raises:
        TerminalError: they have other columns or another number of rows.
    """
    if before.column_names != after.column_names or before.num_rows != after.num_rows:
        raise TerminalError("these training sets have other columns or another number of rows; they cannot be compared")
    found = {name: _differing(before.column(name), after.column(name)) for name in before.column_names}
    cells = [
        Cell(int(row), name, before.column(name)[int(row)].as_py(), after.column(name)[int(row)].as_py())
        for name, rows in found.items()
        for row in rows[:NAMED_CELLS]
    ]
    cells.sort(key=lambda cell: cell.row)
    return Difference(before.num_rows, {name: len(rows) for name, rows in found.items()}, tuple(cells[:NAMED_CELLS]))


def _differing(one: pa.ChunkedArray, other: pa.ChunkedArray) -> np.ndarray:
    same = pc.fill_null(pc.equal(one, other.cast(one.type)), False)
    both_null = pc.and_(pc.is_null(one), pc.is_null(other))
    same = pc.or_(same, both_null)
    if pa.types.is_floating(one.type):
        same = pc.or_(same, pc.fill_null(pc.and_(pc.is_nan(one), pc.is_nan(other)), False))
    return np.flatnonzero(~same.to_numpy())
