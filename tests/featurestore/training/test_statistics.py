"""Column statistics: counts for all, numbers for numbers."""

import math

import pyarrow as pa

from featurestore.training.statistics import ColumnStatistics, column_statistics


def test_numbers() -> None:
    found = column_statistics(pa.array([1.0, None, 4.0, math.nan, 3.0, 2.0]))
    assert (found.count, found.nulls, found.nans) == (5, 1, 1)
    assert (found.mean, found.minimum, found.maximum) == (2.5, 1.0, 4.0)
    assert found.quantiles["0.5"] == 2.0


def test_truth_values_are_zeros_and_ones() -> None:
    assert column_statistics(pa.array([True, False, True, True])).mean == 0.75


def test_texts_and_nothing_are_counted() -> None:
    assert column_statistics(pa.array(["a", None])) == ColumnStatistics(count=1, nulls=1)
    assert column_statistics(pa.nulls(3, pa.float64())) == ColumnStatistics(count=0, nulls=3)
    assert column_statistics(pa.array([], pa.int64())) == ColumnStatistics(count=0, nulls=0)


def test_infinity_has_statistics_too() -> None:
    assert column_statistics(pa.array([math.inf, -math.inf, 1.0])).maximum == math.inf
