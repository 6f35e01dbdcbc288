"""Starts the platform in order, watches it, starts again what has died, and stops it in reverse order."""

import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from featurestore.errors import StoreUnavailableError
from featurestore_cli.stack.leash import describe
from featurestore_cli.stack.ports import describe_listener, is_free
from featurestore_cli.stack.processes import Child, longest_stop_s, start
from featurestore_cli.stack.service import last_lines
from featurestore_cli.stack.state import ProcessState, now
from featurestore_cli.stack.unit import Unit, read_health

log = logging.getLogger(__name__)

STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}  # the last: the terminal was closed
BUSY_S, IDLE_S = 0.1, 1.0  # between two looks, while something starts and otherwise
LOOK_S, LOOK_AGAIN_S = 10.0, 1.0  # between two questions to a program that is ready, and to one that is not
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  # before a died program is started again
STEADY_S = 60.0  # who was ready that long begins with the shortest pause again


class Report(Protocol):
    """Where the platform is shown; called in the supervisor's thread."""

    def changed(self, process: ProcessState) -> None:
        """A program has another state, or another note."""
        ...

    def ready(self, after_s: float) -> None:
        """Everything is ready for the first time."""
        ...

    def refresh(self, processes: Sequence[ProcessState]) -> None:
        """A moment has passed."""
        ...


class Supervised:
    """One unit, its process and its state."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.child: Child | None = None
        self.state = ProcessState(
            name=unit.name,
            state="waiting" if unit.started else "starting",
            since=now(),
            address=unit.program.address.split(",")[0],
            note=unit.note,
            metrics_port=unit.metrics_port,
        )
        self.started_at = time.monotonic()
        self.due_at = 0.0  # when it is looked at, or started again
        self.failures = 0

    @property
    def settled(self) -> bool:
        return self.state.state in {"ready", "done"}


class Supervisor:
    """Owns all programs of the platform, from the first start to the last stop."""

    def __init__(
        self,
        units: Sequence[Unit],
        *,
        logs: Path,
        env: Mapping[str, str],
        held: tuple[int, ...],
        report: Report,
        save: Callable[[Sequence[ProcessState], bool], None],
    ) -> None:
        self._all = {unit.name: Supervised(unit) for unit in units}
        self._logs, self._env, self._held = logs, env, held
        self._report, self._save = report, save
        self._awaited = {*STOP_SIGNALS, signal.SIGCHLD}
        self._ready = self._stopping = False
        self._began_at = time.monotonic()
        self._unsaved = True

    def run(self) -> None:
        """Start and watch everything until a signal to stop comes, then stop it. A second one leaves at once.

        Must be called before other threads are started: signals are blocked here and awaited.
        """
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # `nohup`; a blocked signal would be seen all the same
            self._awaited.remove(signal.SIGHUP)
        signal.pthread_sigmask(signal.SIG_BLOCK, self._awaited)
        try:
            while not self._told_to_stop(self._look()):
                pass
        finally:
            self._stop()

    def _told_to_stop(self, within_s: float) -> bool:
        """Wait for a signal; that a child has ended is one too, and cuts the waiting short."""
        received = signal.sigtimedwait(self._awaited, within_s)
        return received is not None and received.si_signo in STOP_SIGNALS

    def states(self) -> list[ProcessState]:
        """Finished jobs are left out."""
        return [one.state for one in self._all.values() if not (one.unit.once and one.state.state == "done")]

    def _look(self) -> float:
        """See to everything once; return how long to wait until the next time."""
        for one in self._all.values():
            self._see_to(one)
        settled = all(one.settled for one in self._all.values())
        if settled and not self._ready:
            self._ready = self._unsaved = True
            self._report.ready(time.monotonic() - self._began_at)
        self._publish()
        return BUSY_S if any(one.state.state == "starting" for one in self._all.values()) else IDLE_S

    def _see_to(self, one: Supervised) -> None:
        if one.state.state == "waiting" and all(self._all[name].settled for name in one.unit.after):
            self._start(one)
        elif one.child is not None and (code := one.child.exit_code()) is not None:
            self._ended(one, code)
        elif one.state.state == "restarting" and time.monotonic() >= one.due_at:
            self._start(one)
        elif (one.child is not None or not one.unit.started) and time.monotonic() >= one.due_at and not one.unit.once:
            self._ask(one)

    def _start(self, one: Supervised) -> None:
        """Start it, unless somebody else has one of its ports: that one's answers would be taken for its own."""
        if taken := next((port for port in one.unit.program.ports if not is_free(port)), None):
            self._try_later(one, f"port {taken} is taken by {describe_listener(taken)}")
            return
        try:
            one.child = start(one.unit.program, self._logs, self._env, held=self._held)
        except OSError as error:
            self._try_later(one, f"cannot be started: {error}")
            return
        one.started_at, one.due_at = time.monotonic(), 0.0
        self._change(one, "starting", one.unit.note, pid=one.child.pid)

    def _ended(self, one: Supervised, code: int) -> None:
        """A job is done; anything else should not have ended, and is started again."""
        one.child = None
        if code == 0 and (one.unit.once or one.unit.may_end):
            self._became_ready(one, "done")
            return
        if one.state.state == "ready" and time.monotonic() - one.started_at > STEADY_S:
            one.failures = 0
        words = _last_words(self._logs / f"{one.unit.name}.log") if code < 128 else ""
        self._try_later(one, describe(code) + (f": {words}" if words else ""))

    def _try_later(self, one: Supervised, reason: str) -> None:
        """Start it again after a pause that grows from time to time."""
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(one.failures, 10))
        one.failures += 1
        one.due_at = time.monotonic() + pause_s
        note = f"{reason}; again in {pause_s:g} s"
        self._change(one, "restarting", note, pid=0, restarts=one.state.restarts + 1)

    def _ask(self, one: Supervised) -> None:
        """Ask the program whether it is ready."""
        answers, note = _answer(one.unit)
        if answers:
            if one.state.state != "ready":
                self._became_ready(one, "ready")
            self._change(one, "ready", note)
        elif one.state.state == "ready":
            self._change(one, "not ready", note or "does not answer")
        elif note:
            self._change(one, one.state.state, note)
        waited_s = time.monotonic() - one.started_at
        if one.state.state == "starting" and waited_s > one.unit.program.ready_within_s:
            self._change(
                one, "not ready", f"does not answer after {waited_s:.0f} s; `featurestore logs {one.unit.name}`"
            )
        pause_s = {"ready": LOOK_S, "starting": 0.0}.get(one.state.state, LOOK_AGAIN_S)
        one.due_at = time.monotonic() + pause_s

    def _became_ready(self, one: Supervised, state: str) -> None:
        if one.unit.when_ready:
            try:
                one.unit.when_ready()
            except (OSError, StoreUnavailableError) as error:
                log.warning("%s: %s", one.unit.name, error)  # what it would have done is done at the next start
        self._change(one, state, one.unit.note)

    def _change(self, one: Supervised, state: str, note: str, **others: int) -> None:
        since = one.state.since if state == one.state.state else now()
        changed = replace(one.state, state=state, note=note, since=since, **others)  # type: ignore[arg-type]
        if changed != one.state:
            one.state = changed
            self._unsaved = True
            self._tell(lambda: self._report.changed(changed))

    def _publish(self) -> None:
        if self._unsaved:
            self._save(self.states(), self._ready)
            self._unsaved = False
        self._tell(lambda: self._report.refresh(self.states()))

    def _tell(self, call: Callable[[], None]) -> None:
        """Whoever looked may be gone (a closed terminal, `up | head`). That ends the platform, in order."""
        try:
            call()
        except OSError:
            if not self._stopping:
                raise

    def _stop(self) -> None:
        """Wave by wave; each program has its own time, and is killed after it."""
        self._stopping = True
        for wave in sorted({one.unit.wave for one in self._all.values()}):
            running = [one for one in self._all.values() if one.unit.wave == wave and one.child]
            for one in running:
                assert one.child is not None
                one.child.ask_to_stop()
                self._change(one, "stopping", "")
            self._publish()
            bound = time.monotonic() + max((longest_stop_s(one.unit.program) for one in running), default=0.0)
            while waiting := [one for one in running if one.child]:
                self._collect(waiting, kill=time.monotonic() > bound)
                if self._told_to_stop(BUSY_S):
                    os._exit(1)  # the leashes see it, and end what is left
        self._ready = False
        self._save([replace(one.state, state="stopped", pid=0) for one in self._all.values()], False)

    def _collect(self, waiting: Sequence[Supervised], *, kill: bool) -> None:
        for one in waiting:
            if kill and one.child:
                one.child.stop()
            if one.child and one.child.exit_code() is not None:
                one.child = None
                self._change(one, "stopped", "", pid=0)
        self._publish()


def _answer(unit: Unit) -> tuple[bool, str]:
    if unit.metrics_port:
        return read_health(unit.metrics_port)
    return unit.program.answers(), unit.note


def _last_words(log: Path) -> str:
    """What a program that ended by itself said last."""
    lines = last_lines(log, 20)
    return next((line for line in reversed(lines) if line.strip() and not line.startswith("===")), "")
