"""Comparing ways to do one thing: interleaved in one process, so that whatever else the machine does hits all alike.

Times are medians; what counts is their ratio. CPU time says who would win on a busy machine. Memory is the peak of a
process of its own, for each way.
"""

import multiprocessing
import statistics
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
    cpu_seconds: float
    peak_mb: float


def compare(ours: Way[State], others: Sequence[Way[State]], *, repeats: int) -> Mapping[str, Result]:
    """Run all, print a line each, and how ours compares to the fastest other; results by name."""
    ways = [ours, *others]
    states = [way.prepare() for way in ways]
    taken: dict[str, list[tuple[float, float]]] = {way.name: [] for way in ways}
    for _ in range(repeats):
        for way, state in zip(ways, states, strict=True):
            start, cpu_start = time.perf_counter(), time.process_time()
            way.run(state)
            taken[way.name].append((time.perf_counter() - start, time.process_time() - cpu_start))
    del states
    found = {way.name: _result(way, taken[way.name]) for way in ways}
    best = min((found[way.name] for way in others), key=lambda one: one.seconds)
    for one in found.values():
        print(f"  {one.name:44} {one.seconds:8.3f} s  {one.cpu_seconds:8.3f} s CPU  {one.peak_mb:8.0f} MB")
    mine = found[ours.name]
    print(
        f"  ratio to {best.name!r}: time {mine.seconds / best.seconds:.2f}, "
        f"CPU {mine.cpu_seconds / best.cpu_seconds:.2f}, memory {mine.peak_mb / best.peak_mb:.2f}",
        flush=True,
    )
    return found


def _result(way: Way[State], taken: Sequence[tuple[float, float]]) -> Result:
    seconds, cpu_seconds = (statistics.median(one) for one in zip(*taken, strict=True))
    return Result(way.name, seconds, cpu_seconds, alone(way).peak_mb)


def alone(way: Way[State]) -> Result:
    """One run in a fresh process, with the memory that it needs at most."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_alone, (way,))


def _alone(way: Way[State]) -> Result:
    state = way.prepare()
    start, cpu_start = time.perf_counter(), time.process_time()
    way.run(state)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    peak_mb = int(line.split()[1]) / 1024  # unlike ru_maxrss, not inherited from the process that started this one
    return Result(way.name, seconds, cpu_seconds, peak_mb)
