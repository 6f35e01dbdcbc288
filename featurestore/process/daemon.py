"""The one loop of every long-running process: start → step … → drain → stop, ended by signals."""

import logging
import math
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from featurestore.errors import FeatureStoreError, TransientError
from featurestore.process.health import Health

log = logging.getLogger(__name__)

STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}
DONE, FAILED = 0, 1


class Service(Protocol):
    """What a process does; the loop owns when."""

    def start(self) -> None:
        """Open what is needed; called once, before the first step."""
        ...

    def step(self) -> bool:
        """Do a bounded piece of work; return whether there was any. A step that waits does so for about a second."""
        ...

    def drain(self) -> None:
        """Finish what was begun; called once, after the last step, unless a step failed for good."""
        ...

    def stop(self) -> None:
        """Close everything; called on every path, also when start failed."""
        ...


class Daemon:
    """Runs a service until it is asked to stop. A TransientError is tried again, with back-off; others end the loop."""

    def __init__(self, service: Service, *, health: Health, idle_s: float = 0.0, longest_retry_s: float = 5.0) -> None:
        self._service, self._health = service, health
        self._idle_s, self._longest_retry_s = idle_s, longest_retry_s
        self._stopping = threading.Event()
        self._failures = 0

    def request_stop(self) -> None:
        self._stopping.set()

    def run(self) -> None:
        try:
            if not self._started():
                return
            while not self._stopping.is_set():
                pause_s = self._attempt(self._service.step)
                if pause_s:
                    self._stopping.wait(pause_s)
            self._service.drain()
        finally:
            self._service.stop()

    def _started(self) -> bool:
        """Try to start until it works or the process is asked to stop."""
        started = False

        def start() -> bool:
            nonlocal started
            self._service.start()
            started = True
            return True

        while not started and not self._stopping.is_set():
            pause_s = self._attempt(start)
            if not started:
                self._stopping.wait(pause_s)
        return started

    def _attempt(self, call: "Step") -> float:
        """Return how long to pause: 0 after work, `idle_s` when idle, a growing time after a TransientError."""
        try:
            worked = call()
        except TransientError as error:
            self._failures += 1
            self._health.not_ready(str(error))
            pause_s = min(self._longest_retry_s, 0.1 * 2**self._failures) * random.uniform(0.5, 1.0)
            log.warning("trying again in %.1f s: %s", pause_s, error)
            return pause_s
        if self._failures:
            log.info("works again after %d failed attempts", self._failures)
            self._failures = 0
            self._health.recovered()
        return 0.0 if worked else self._idle_s


class Step(Protocol):
    def __call__(self) -> bool: ...


def run_until_signalled(daemon: Daemon, *, drain_s: float = math.inf) -> int:
    """Run in a thread of its own and wait for signals here; return the exit code.

    The first SIGTERM or SIGINT drains; the second leaves at once, and so does `drain_s` after the first. Signals are
    blocked and awaited instead of handled: a handler that touches a lock can stop the whole process.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # threads started later inherit this
    signals_seen, leave_at = 0, math.inf
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="loop") as pool:
        loop = pool.submit(daemon.run)
        loop.add_done_callback(lambda _: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM))
        while not loop.done():
            info = signal.sigtimedwait(STOP_SIGNALS, max(0.0, min(5.0, leave_at - time.monotonic())))
            if time.monotonic() >= leave_at and not loop.done():
                log.error("not drained within %g s: leaving", drain_s)
                os._exit(FAILED)
            # After a SIGSTOP that outlasted the wait, Python 3.11 returns something that is no signal of ours.
            if info is None or info.si_signo not in STOP_SIGNALS or loop.done():
                continue
            signals_seen += 1
            if signals_seen > 1:
                os._exit(FAILED)
            daemon.request_stop()
            leave_at = time.monotonic() + drain_s
        try:
            loop.result()
        except FeatureStoreError as error:
            log.error("%s", error)  # noqa: TRY400  # the message says it all
            return FAILED
        except Exception:  # the one place: whatever ends a process is logged whole
            log.exception("unexpected error")
            return FAILED
    return DONE
