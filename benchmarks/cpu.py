"""CPU seconds of processes and all their descendants."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import psutil

LOOK_S = 0.2  # what a process used between the last look and its end is not counted


class Cpu:
    """Counts by the name of the root, ended descendants included: a run lasts for seconds."""

    def __init__(self, roots: Mapping[str, int]) -> None:
        self._roots = {name: psutil.Process(pid) for name, pid in roots.items()}
        self._seen: dict[str, dict[tuple[int, float], float]] = {name: {} for name in roots}
        self._stop = threading.Event()

    @contextmanager
    def counting(self) -> Iterator[None]:
        self._look()
        self._before = self._sums()
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    @property
    def seconds(self) -> Mapping[str, float]:
        """Since `counting` began."""
        return {name: now - self._before[name] for name, now in self._sums().items()}

    def _sums(self) -> Mapping[str, float]:
        return {name: sum(seen.values()) for name, seen in self._seen.items()}

    def _look(self) -> None:
        children: dict[int, list[psutil.Process]] = {}
        for process in psutil.process_iter(["ppid"]):
            children.setdefault(process.info["ppid"], []).append(process)
        for name, root in self._roots.items():
            waiting = [root]
            while waiting:
                process = waiting.pop()
                waiting += children.get(process.pid, ())
                with suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    self._seen[name][process.pid, process.create_time()] = times.user + times.system

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_S):
            self._look()
