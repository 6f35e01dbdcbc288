"""Rows become the caller's own type, or the difference is named."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from featurestore.database.rows import build
from featurestore.errors import QueryError


@dataclass(frozen=True)
class Trained:
    version: str
    at: datetime | None
    size: int = 0
    tags: list[str] = field(default_factory=list[str])


def test_rows_are_built_by_name() -> None:
    table = pa.table({"size": [1, 2], "at": pa.array([0, None], pa.timestamp("us")), "version": ["a", "b"]})
    first, second = build(table, Trained)
    assert first == Trained("a", datetime(1970, 1, 1, tzinfo=UTC), 1)
    assert first.at is not None
    assert first.at.tzinfo is UTC
    assert second.at is None


def test_no_rows_are_no_values() -> None:
    assert (
        build(pa.table({"version": pa.array([], pa.string()), "at": pa.array([], pa.timestamp("us"))}), Trained) == []
    )


def test_a_sum_of_integers_is_an_integer() -> None:
    @dataclass
    class Sum:
        total: int

    assert build(pa.table({"total": pa.array([3], pa.decimal128(38, 0))}), Sum) == [Sum(3)]
    assert build(pa.table({"total": pa.array([2**70], pa.decimal128(38, 0))}), Sum)[0].total == 2**70


@pytest.mark.parametrize("names", [("version",), ("version", "at", "more"), ("version", "at", "at")])
def test_other_columns_are_refused(names: tuple[str, ...]) -> None:
    table = pa.Table.from_arrays([pa.array(["x"])] * len(names), names=list(names))
    with pytest.raises(QueryError, match=f"the query returns {', '.join(names)}; Trained has version, at, size, tags"):
        build(table, Trained)


def test_only_dataclasses_are_built() -> None:
    with pytest.raises(TypeError, match="is not a dataclass"):
        build(pa.table({"a": [1]}), dict)
