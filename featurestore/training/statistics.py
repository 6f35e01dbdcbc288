"""What a column holds, in a few numbers: for receipts and for eyes."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnStatistics:
    """Counts of all columns; the rest of numbers only (of bool: 0 and 1), NaN left out."""

    count: int
    nulls: int
    nans: int = 0
    mean: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    quantiles: dict[str, float | None] = field(default_factory=dict[str, float | None])  # "0.5" is the median


def column_statistics(column: pa.ChunkedArray | pa.Array) -> ColumnStatistics:
    count, nulls = len(column) - column.null_count, column.null_count
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)):
        return ColumnStatistics(count=count, nulls=nulls)
    numbers = column.drop_null().to_numpy(zero_copy_only=False).astype(np.float64)
    real = numbers[~np.isnan(numbers)]
    if not len(real):
        return ColumnStatistics(count=count, nulls=nulls, nans=len(numbers))
    with np.errstate(all="ignore"):  # of infinities
        levels = np.quantile(real, QUANTILES, method="inverted_cdf").tolist()
        return ColumnStatistics(
            count=count,
            nulls=nulls,
            nans=len(numbers) - len(real),
            mean=float(real.mean()),
            minimum=float(real.min()),
            maximum=float(real.max()),
            quantiles=dict(zip(map(str, QUANTILES), levels, strict=True)),
        )
