"""Folds in a fixed order, so that a sum has the same bits whoever computes it, wherever and however often.

Within a run (an entity's inputs in one tile) values are folded in the total order; then the runs of a window, the
oldest first. Addition of floats is not associative, so this order is part of the result. Online reads fold their
tiles the same way.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from featurestore.training.spine import Int64s

Values = np.ndarray[tuple[int], np.dtype[Any]]

_LONG_RUN = 64  # from here on one numpy call per run is faster than one per place in a run
_EXPANDED = 4_000_000  # inputs looked at singly at a time; bounds memory


@dataclass(frozen=True, slots=True)
class Operation:
    """How two values become one, and what changes nothing."""

    function: np.ufunc
    identity: float | int


@dataclass(frozen=True, slots=True)
class Ranges:
    """Per window: inputs [first, end), and from when on one sees them."""

    first: Int64s
    end: Int64s
    times_us: Int64s


class Runs:
    """Inputs in the total order, cut into runs."""

    def __init__(self, starts: Int64s, size: int) -> None:
        """`starts` are the places where a run begins, ascending from 0."""
        self.starts = starts
        self.ends = np.append(starts[1:], size)

    def of(self, inputs: Int64s) -> Int64s:
        """The run that each of some inputs is in."""
        return np.searchsorted(self.starts, inputs, side="right") - 1

    def running(self, values: Values, operation: Operation) -> Values:
        """Per input the fold of its run up to and with itself."""
        folded = np.empty_like(values)
        folded[self.starts] = operation.function(values.dtype.type(operation.identity), values[self.starts])
        lengths = self.ends - self.starts
        long = lengths > _LONG_RUN
        for start, end in zip(self.starts[long], self.ends[long], strict=True):
            folded[start + 1 : end] = values[start + 1 : end]
            operation.function.accumulate(folded[start:end], out=folded[start:end])
        short = np.flatnonzero(~long & (lengths > 1))
        short = short[np.argsort(-lengths[short], kind="stable")]
        for place, count in _shrinking(lengths[short] - 1):
            at = self.starts[short[:count]] + place + 1
            folded[at] = operation.function(folded[at - 1], values[at])
        return folded


def fold(runs: Runs, values: Values, operation: Operation, ranges: Ranges, visible_us: Int64s | None) -> Values:
    """The fold of each window over those of its inputs that are visible at its time, the oldest run first.

    A range begins where a run does. Without `visible_us` every input of a range is visible. The identity where none is.
    """
    result = np.full(len(ranges.first), operation.identity, values.dtype)
    running = runs.running(values, operation)
    visible_from = None if visible_us is None else runs.running(visible_us, LATEST)
    some = np.flatnonzero(ranges.end > ranges.first)
    first_run = runs.of(ranges.first[some])
    counts = runs.of(ranges.end[some] - 1) - first_run + 1
    order = np.argsort(-counts, kind="stable")
    some, first_run = some[order], first_run[order]
    for step, count in _shrinking(counts[order]):
        windows, run = some[:count], first_run[:count] + step
        end = np.minimum(runs.ends[run], ranges.end[windows])
        folded = running[end - 1]
        if visible_us is not None and visible_from is not None:
            hidden = np.flatnonzero(visible_from[end - 1] > ranges.times_us[windows])
            part = Ranges(runs.starts[run[hidden]], end[hidden], ranges.times_us[windows[hidden]])
            from_here = _first_hidden(part, visible_from)
            before = np.where(from_here > part.first, running[from_here - 1], folded.dtype.type(operation.identity))
            part = Ranges(from_here, part.end, part.times_us)
            folded[hidden] = _fold_visible(values, operation, part, visible_us, before)
        result[windows] = operation.function(result[windows], folded)
    return result


ADD = Operation(np.add, 0)
LATEST = Operation(np.maximum, np.iinfo(np.int64).min)


def _first_hidden(ranges: Ranges, visible_from: Int64s) -> Int64s:
    """Per range the first input up to which not everything is visible; what is before it is folded already."""
    low, high = ranges.first.copy(), ranges.end.copy()
    while len(unsure := np.flatnonzero(low < high)):
        middle = (low[unsure] + high[unsure]) // 2
        seen = visible_from[middle] <= ranges.times_us[unsure]
        low[unsure[seen]] = middle[seen] + 1
        high[unsure[~seen]] = middle[~seen]
    return low


def _fold_visible(values: Values, operation: Operation, ranges: Ranges, visible_us: Int64s, before: Values) -> Values:
    """Go on folding from `before`, each input looked at and left out if it is not visible yet."""
    result = before.copy()
    for some in _pieces(ranges.end - ranges.first):
        lengths = ranges.end[some] - ranges.first[some]
        owner = np.repeat(some, lengths)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        place = ranges.first[owner] + within
        seen = visible_us[place] <= ranges.times_us[owner]
        owner, place = owner[seen], place[seen]
        if len(owner):
            new = np.flatnonzero(np.insert(owner[1:] != owner[:-1], 0, True))
            continued = np.insert(values[place], new, result[owner[new]])
            runs = Runs(new + np.arange(len(new)), len(continued))
            result[owner[new]] = runs.running(continued, operation)[runs.ends - 1]
    return result


def _shrinking(counts: Int64s) -> Iterator[tuple[int, int]]:
    """For descending counts: each step, and how many of them are larger than it."""
    if len(counts):
        larger = np.searchsorted(-counts, -np.arange(int(counts[0])), side="left")
        yield from enumerate(larger.tolist())


def _pieces(lengths: Int64s) -> Iterator[Int64s]:
    """Indexes, cut so that each piece has about _EXPANDED inputs."""
    piece = np.cumsum(lengths) // _EXPANDED
    for one in np.split(np.arange(len(lengths)), np.flatnonzero(np.diff(piece)) + 1):
        if len(one):
            yield one
