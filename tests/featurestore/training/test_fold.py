"""Folds have the bits of a plain loop over runs and windows, however the arrays are cut."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.training import fold as module
from featurestore.training.fold import ADD, Operation, Ranges, Runs, fold

FLOATS = st.sampled_from([0.1, 0.2, 0.3, 1e16, -1e16, 3.3, -7.7, 1e-300])
LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=8)


def random_floats(count: int, seed: int) -> np.ndarray[Any, Any]:
    chance = np.random.default_rng(seed)
    return chance.standard_normal(count) * 10.0 ** chance.integers(-12, 12, count)


def starts_of(lengths: Sequence[int]) -> np.ndarray[Any, Any]:
    return np.cumsum([0, *lengths[:-1]])


@given(LENGTHS, st.integers(0, 2**32))
def test_a_running_sum_is_that_of_a_loop(lengths: list[int], seed: int) -> None:
    values = random_floats(sum(lengths), seed)
    running = Runs(starts_of(lengths), len(values)).running(values, ADD)
    wanted: list[float] = []
    for start, length in zip(starts_of(lengths), lengths, strict=True):
        total = 0.0
        for value in values[start : start + length]:
            total += float(value)
            wanted.append(total)
    assert running.tolist() == wanted  # equal means to the bit: there is no NaN here


@settings(deadline=None)
@given(LENGTHS, st.integers(0, 2**32), st.booleans(), st.data())
def test_a_fold_is_that_of_a_loop(lengths: list[int], seed: int, hiding: bool, data: st.DataObject) -> None:
    """Runs of any length, windows that begin with a run and end anywhere, inputs that are not visible yet."""
    starts, size = starts_of(lengths), sum(lengths)
    values = random_floats(size, seed)
    visible = np.random.default_rng(seed).integers(0, 10, size) if hiding else None
    firsts = np.array(data.draw(st.lists(st.sampled_from(starts.tolist()), min_size=1, max_size=6)))
    ends = np.array([data.draw(st.integers(int(first), size)) for first in firsts])
    times = np.array([data.draw(st.integers(0, 10)) for _ in firsts])
    found = fold(Runs(starts, size), values, ADD, Ranges(firsts, ends, times), visible)
    of = Runs(starts, size).of(np.arange(size))
    for first, end, time, got in zip(firsts, ends, times, found, strict=True):
        seen = [place for place in range(first, end) if visible is None or visible[place] <= time]
        runs = [
            [float(values[place]) for place in seen if of[place] == run]
            for run in sorted({of[place] for place in seen})
        ]
        total = 0.0
        for run in runs:
            total += functools.reduce(float.__add__, run, 0.0)
        assert got == total


def test_long_ranges_are_looked_at_in_pieces(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "_EXPANDED", 7)
    values = random_floats(100, 1)
    visible = np.arange(100) % 3
    ends, times = np.arange(1, 101), np.ones(100, np.int64)
    found = fold(Runs(np.array([0]), 100), values, ADD, Ranges(np.zeros(100, np.int64), ends, times), visible)
    wanted = [
        functools.reduce(float.__add__, [float(v) for v in values[:end][visible[:end] <= 1]], 0.0) for end in ends
    ]
    assert found.tolist() == wanted


def test_nothing_to_fold_is_the_identity() -> None:
    nowhere = np.zeros(2, np.int64)
    empty = Runs(np.empty(0, np.int64), 0)
    found = fold(empty, np.empty(0), Operation(np.fmin, np.nan), Ranges(nowhere, nowhere, nowhere), None)
    assert all(math.isnan(value) for value in found)
