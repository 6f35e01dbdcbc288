"""Differences name the cells, and take NULL and NaN for what they are."""

import math

import pyarrow as pa
import pytest

from featurestore.errors import TerminalError
from featurestore.training import diff
from featurestore.training.diff import Cell, difference

THEN = pa.table({"id": [1, 2, 3, 4], "x": [1.0, None, math.nan, 2.0], "s": ["a", None, "b", "c"]})


def test_equal_tables_do_not_differ() -> None:
    found = difference(THEN, pa.concat_tables([THEN.slice(0, 2), THEN.slice(2)]))
    assert not found
    assert found.changed == {"id": 0, "x": 0, "s": 0}


def test_changed_cells_are_named_by_row() -> None:
    now = pa.table({"id": [1, 2, 3, 4], "x": [1.0, 0.0, 5.0, None], "s": ["a", None, "B", "c"]})
    found = difference(THEN, now)
    assert found.changed == {"id": 0, "x": 3, "s": 1}
    assert found.cells[0] == Cell(1, "x", None, 0.0)
    assert [(cell.row, cell.column, cell.after) for cell in found.cells] == [
        (1, "x", 0.0), (2, "x", 5.0), (2, "s", "B"), (3, "x", None),
    ]  # fmt: skip


def test_many_are_counted_but_not_all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diff, "NAMED_CELLS", 2)
    found = difference(THEN, THEN.set_column(0, "id", [[9, 9, 9, 9]]))
    assert found.changed["id"] == 4
    assert [cell.row for cell in found.cells] == [0, 1]


@pytest.mark.parametrize("other", [THEN.slice(1), THEN.drop_columns(["s"])])
def test_other_columns_or_rows_cannot_be_compared(other: pa.Table) -> None:
    with pytest.raises(TerminalError, match="cannot be compared"):
        difference(THEN, other)
