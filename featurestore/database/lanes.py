"""Who of the admitted readers is served next, and when a query has taken too long."""

import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf
from time import monotonic
from typing import Generic, TypeVar

import duckdb

Item = TypeVar("Item")

_TICK_S, _IDLE_S = 0.05, 60.0


class FairQueue(Generic[Item]):
    """First in, first out for each client; one item of each client in turn."""

    def __init__(self, most: int) -> None:
        """`most`: items of one client that wait at a time."""
        self._most = most
        self._changed = threading.Condition()
        self._waiting: dict[str, deque[Item]] = {}  # in the order in which clients are served
        self._closed = False

    def put(self, client: str, item: Item) -> bool:
        """Return whether there was room."""
        with self._changed:
            items = self._waiting.setdefault(client, deque())
            if len(items) >= self._most:
                return False
            items.append(item)
            self._changed.notify()
            return True

    def take(self, timeout_s: float) -> Item | None:
        """The next item; None when none comes in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, timeout_s)
            if not self._waiting:
                return None
            client, items = next(iter(self._waiting.items()))
            del self._waiting[client]
            item = items.popleft()
            if items:
                self._waiting[client] = items  # behind the others
            return item

    def close(self) -> None:
        """Let those who wait go; what is in the queue is still handed out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        with self._changed:
            return self._closed and not self._waiting


class Seats:
    """How many queries run at once: `count` quick ones, and as many slow ones beside them.

    A query that still runs after a while moves to a slow seat as soon as one is free, so that small queries get through
    between a few heavy ones.
    """

    def __init__(self, count: int) -> None:
        self._quick, self._slow = threading.Semaphore(count), threading.Semaphore(count)

    def take(self, timeout_s: float) -> "Seat | None":
        """A quick seat; None when none gets free in time. Whoever takes it leaves it."""
        return Seat(self._quick, self._slow) if self._quick.acquire(timeout=timeout_s) else None


class Seat:
    """Held by one query."""

    def __init__(self, quick: threading.Semaphore, slow: threading.Semaphore) -> None:
        self._held, self._slow = quick, slow
        self._lock = threading.Lock()
        self._left = False

    def move(self) -> None:
        """To a slow seat, if there is one."""
        with self._lock:
            if not self._left and self._held is not self._slow and self._slow.acquire(blocking=False):
                self._held.release()
                self._held = self._slow

    def leave(self) -> None:
        with self._lock:
            self._left = True
            self._held.release()


class Alarms:
    """Calls what is due, about a twentieth of a second late at most, and again until it is over, in one thread.

    A `threading.Timer` for each query would cost more than a small query does.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: list[_Alarm] = []
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="alarms", daemon=True)
        self._thread.start()

    @contextmanager
    def after(self, seconds: float, call: Callable[[], None]) -> Generator[None]:
        """Call it if what runs inside takes so long, and again while it does. It may still be called right after."""
        alarm = _Alarm(monotonic() + seconds, call)
        with self._changed:
            heappush(self._due, alarm)
            if self._due[0] is alarm:
                self._changed.notify()
        try:
            yield
        finally:
            alarm.call = None  # and is dropped when it is due

    def ring(self) -> None:
        """Call everything that is waiting, now and again."""
        with self._changed:
            self._call_due(inf)
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                now = monotonic()
                self._call_due(now)
                pause_s = self._due[0].at - now if self._due else _IDLE_S
                self._changed.wait(max(pause_s, _TICK_S))

    def _call_due(self, now: float) -> None:
        late: list[_Alarm] = []
        while self._due and self._due[0].at <= now:
            alarm = heappop(self._due)
            if call := alarm.call:
                call()
                late.append(alarm)
        for alarm in late:
            alarm.at = monotonic() + _TICK_S
            heappush(self._due, alarm)


@dataclass(slots=True, order=True)
class _Alarm:
    at: float
    call: Callable[[], None] | None = field(compare=False)


class Deadline:
    """Interrupts a cursor when its time is up; `passed` says whether it did.

    An interruption between two statements is forgotten by DuckDB, so one is not enough.
    """

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor
        self._lock = threading.Lock()
        self._over = False
        self.passed = False

    def interrupt(self) -> None:
        with self._lock:  # never after `finish`: the cursor would be closed, or busy with something else
            if not self._over:
                self.passed = True
                self._cursor.interrupt()

    def finish(self) -> None:
        with self._lock:
            self._over = True


@contextmanager
def deadline(alarms: Alarms, cursor: duckdb.DuckDBPyConnection, seconds: float) -> Generator[Deadline]:
    """Give what runs inside so much time."""
    limit = Deadline(cursor)
    try:
        with alarms.after(seconds, limit.interrupt):
            yield limit
    finally:
        limit.finish()
