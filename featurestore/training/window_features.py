"""Window features: the rows that each window covers, folded; featurestore.windows says which rows these are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from featurestore.definitions.dtypes import arrow_type
from featurestore.errors import TerminalError
from featurestore.training.fold import ADD, Operation, Ranges, Runs, Values, fold
from featurestore.training.pit_plan import ViewRead, WindowRead
from featurestore.training.spine import Int64s, pc, places
from featurestore.training.timeline import Moments, Timeline
from featurestore.transform.derivation import TYPES
from featurestore.windows import Window

_INT64 = np.iinfo(np.int64)
_OLDEST, _NEWEST = Operation(np.minimum, _INT64.max), Operation(np.maximum, _INT64.min)
_LOW_BITS = 32


@dataclass(frozen=True, slots=True)
class _Inputs:
    """The inputs of one aggregation in the order of the timeline, those that are not NULL."""

    column: pa.Array  # the inputs' values
    before: Int64s  # how many inputs stand before each row of the timeline, and after all of them
    codes: Int64s
    times_us: Int64s
    visible_us: Int64s | None
    _runs: dict[Window, Runs] = field(default_factory=dict[Window, Runs])

    @classmethod
    def of(cls, timeline: Timeline, column: pa.ChunkedArray) -> "_Inputs":
        values = column.take(places(timeline.rows)).combine_chunks()
        counted = values.is_valid().to_numpy(zero_copy_only=False)
        visible = timeline.visible_us
        return cls(
            values.drop_null(),
            np.insert(np.cumsum(counted, dtype=np.int64), 0, 0),
            timeline.codes[counted],
            timeline.times_us[counted],
            None if visible is None else visible[counted],
        )

    def runs(self, window: Window) -> Runs:
        """Cut where the entity or the tile changes."""
        if window not in self._runs:
            tiles = window.tile(self.times_us)
            new = (self.codes[1:] != self.codes[:-1]) | (tiles[1:] != tiles[:-1])
            starts = np.flatnonzero(np.insert(new, 0, True)) if len(tiles) else np.empty(0, np.int64)
            self._runs[window] = Runs(starts, len(tiles))
        return self._runs[window]


def fold_windows(view: ViewRead, timeline: Timeline, log: pa.Table, moments: Moments) -> Mapping[str, pa.Array]:
    """The window features of a view by name, one value per moment, in their order."""
    if not view.windows:
        return {}
    ends = timeline.until(moments)
    starts = {w: timeline.after(moments.at(w.start(moments.times_us))) for w in view.distinct_windows}
    inputs = {name: _Inputs.of(timeline, log.column(name)) for name in {one.column for one in view.windows}}
    found: dict[str, pa.Array] = {}
    for read in view.windows:
        of = inputs[read.column]
        ranges = Ranges(of.before[starts[read.window]], of.before[ends], moments.times_us)
        found[read.name] = _Fold(of, read.window, ranges).value(read)
    return found


@dataclass(frozen=True, slots=True)
class _Fold:
    """One aggregation over one window."""

    inputs: _Inputs
    window: Window
    ranges: Ranges

    def value(self, read: WindowRead) -> pa.Array:
        dtype = arrow_type(TYPES[read.dtype])
        if read.function == "count":
            return pa.array(self._count(), dtype)
        if read.function in {"first", "last"}:
            place = self._first() if read.function == "first" else self._last()
            return self.inputs.column.take(places(place, (place < 0) | (place >= len(self.inputs.column))))
        empty = self._count() == 0
        if read.function == "sum":
            numbers = self._sum_of_ints(read) if dtype == pa.int64() else self._over(self._floats(), ADD)
            return pa.array(numbers, dtype, mask=empty)
        if read.function == "mean":
            return pa.array(self._over(self._floats(), ADD) / np.where(empty, 1, self._count()), dtype, mask=empty)
        return self._extreme(np.minimum if read.function == "min" else np.maximum, empty)

    def _over(self, values: Values, operation: Operation) -> Values:
        return fold(self.inputs.runs(self.window), values, operation, self.ranges, self.inputs.visible_us)

    def _count(self) -> Int64s:
        if self.inputs.visible_us is None:
            return self.ranges.end - self.ranges.first
        return self._over(np.ones(len(self.inputs.column), np.int64), ADD)

    def _first(self) -> Int64s:
        return self._over(np.arange(len(self.inputs.column)), _OLDEST)

    def _last(self) -> Int64s:
        return self._over(np.arange(len(self.inputs.column)), _NEWEST)

    def _floats(self) -> Values:
        return self.inputs.column.to_numpy().astype(np.float64)

    def _sum_of_ints(self, read: WindowRead) -> Int64s:
        """Exact: the low and the high halves are summed apart, so that neither overflows."""
        values = self.inputs.column.to_numpy()
        low = self._over(values & (2**_LOW_BITS - 1), ADD)
        high = self._over(values >> _LOW_BITS, ADD) + (low >> _LOW_BITS)
        if len(high) and (high.max() >= 2**31 or high.min() < -(2**31)):
            raise TerminalError(f"feature {read.name!r}: a sum does not fit into 64 bits; declare dtype=float")
        return (high << _LOW_BITS) | (low & (2**_LOW_BITS - 1))

    def _extreme(self, function: np.ufunc, empty: Any) -> pa.Array:
        """NaN is larger than every number, as it is in SQL; -0.0 and 0.0 are one value."""
        column = self.inputs.column
        if pa.types.is_floating(column.type):
            smallest = function is np.minimum
            operation = Operation(np.fmin, np.nan) if smallest else Operation(np.maximum, -np.inf)
            return pa.array(self._over(column.to_numpy() + 0.0, operation), mask=empty)
        operation = _OLDEST if function is np.minimum else _NEWEST
        if pa.types.is_integer(column.type):
            return pa.array(self._over(column.to_numpy(), operation), mask=empty)
        ranked = column.unique().take(pc.sort_indices(column.unique()))  # texts by their bytes, false before true
        ranks = pc.index_in(column, value_set=ranked).cast(pa.int64()).to_numpy()
        return ranked.take(places(self._over(ranks, operation), empty))
