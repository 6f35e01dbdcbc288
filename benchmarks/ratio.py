"""Comparing ways to do one thing: interleaved in one process, so that whatever else the machine does hits all alike.

Times are medians; what counts is their ratio. Memory is the peak of a process of its own, for each way.
"""

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

State = TypeVar("State")


@dataclass(frozen=True)
class Way(Generic[State]):
    """One way: what it needs is prepared outside the clock. Both are module-level functions."""

    name: str
    prepare: Callable[[], State]
    run: Callable[[State], object]


@dataclass(frozen=True)
class Result:
    name: str
    seconds: float
    peak_mb: float


def compare(ours: Way[State], others: Sequence[Way[State]], *, repeats: int) -> Mapping[str, Result]:
    """Run all, print a line each, and how ours compares to the fastest other; results by name."""
    ways = [ours, *others]
    states = [way.prepare() for way in ways]
    seconds: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(repeats):
        for way, state in zip(ways, states, strict=True):
            start = time.perf_counter()
            way.run(state)
            seconds[way.name].append(time.perf_counter() - start)
    del states
    found = {way.name: Result(way.name, statistics.median(seconds[way.name]), peak_mb(way)) for way in ways}
    best = min((found[way.name] for way in others), key=lambda one: one.seconds)
    for one in found.values():
        sys.stdout.write(f"  {one.name:44} {one.seconds:8.3f} s  {one.peak_mb:8.0f} MB\n")
    mine = found[ours.name]
    sys.stdout.write(
        f"  ratio to {best.name!r}: time {mine.seconds / best.seconds:.2f}, memory {mine.peak_mb / best.peak_mb:.2f}\n"
    )
    sys.stdout.flush()
    return found


def peak_mb(way: Way[State]) -> float:
    """The memory a fresh process needs at most."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak_mb, (way,))


def _peak_mb(way: Way[State]) -> float:
    way.run(way.prepare())
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024  # unlike ru_maxrss, not inherited from the process that started this one
