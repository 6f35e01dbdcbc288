"""Keeps one program on a leash: when the process that started it is gone, the program and all its descendants end.

Run as a script, with the standard library only, so that it is small and starts at once:
`python -I -S leash.py LIFE_FD STOP_S OUTLIVE_S LOG LOG_BYTES COMMAND…`. LIFE_FD is the reading end of a pipe whose
writing end only the starter holds: however the starter ends, kill -9 included, the pipe closes. (PR_SET_PDEATHSIG alone
would follow the *thread* that forked, and reach the program only, not the processes that it forked.)
"""

import ctypes
import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LEAVE_WITHIN_S = 2.0  # what has been asked to end twice over
KILL_WITHIN_S = 5.0  # a process in the kernel's hands may take a moment, even after SIGKILL
OLD_LOGS = 2


class Log:
    """A file that is turned over at `limit` bytes; a full disk loses lines, never the program."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path, self._limit = path, limit
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, data: bytes) -> None:
        with suppress(OSError):
            if os.fstat(self._file).st_size + len(data) > self._limit:
                self._turn_over()
            os.write(self._file, data)

    def say(self, text: str) -> None:
        self.write(f"=== {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n".encode())

    def _turn_over(self) -> None:
        for age in range(OLD_LOGS, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{age}")
            newer = self._path.with_name(f"{self._path.name}.{age - 1}") if age > 1 else self._path
            if newer.exists():
                newer.rename(older)
        os.close(self._file)
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


class Leash:
    """Starts the program, passes its output to the log, and ends it with everything that it started."""

    def __init__(self, command: list[str], life: int, stop_s: float, outlive_s: float, log: Log) -> None:
        self._life, self._stop_s, self._outlive_s, self._log = life, stop_s, outlive_s, log
        self._status: int | None = None  # of the program, once it has ended
        self._deadline: float | None = None  # until when what is being ended may take its time
        self._orphan_until: float | None = None  # when it is ended, if the starter is gone
        self._finish = True  # whether what the program leaves behind may come to an end by itself
        self._poll = select.poll()
        self._signals, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)  # seen through the wake-up pipe
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the starter may have blocked them
        self._output, into = os.pipe()
        self._program = _fork(command, into)
        os.close(into)
        self._on = {self._life: self._on_life, self._signals: self._on_signals, self._output: self._on_output}
        log.say(f"started {Path(command[0]).name}, process {self._program}")

    def run(self) -> int:
        """Return the program's exit code (128 + signal when a signal ended it) when all of it is gone."""
        self._poll.register(self._life, 0)  # the end of it is told unasked
        self._poll.register(self._signals, select.POLLIN)
        self._poll.register(self._output, select.POLLIN)
        while not self._reap():
            for file, _ in self._poll.poll(self._wait_ms()):
                self._on[file]()
            if _past(self._orphan_until):
                self._orphan_until = None
                self._end("the process that started it is gone", finish=False)
            if _past(self._deadline) and not self._press():
                break
        os.set_blocking(self._output, False)
        while self._pump():
            pass
        status = 128 + signal.SIGKILL if self._status is None else self._status
        self._log.say(f"ended with {describe(status)}")
        return status

    def _on_life(self) -> None:
        self._poll.unregister(self._life)
        self._orphan_until = time.monotonic() + self._outlive_s

    def _on_signals(self) -> None:
        if signal.SIGTERM in os.read(self._signals, 4096):
            self._end("asked to stop", finish=True)

    def _on_output(self) -> None:
        if not self._pump():
            self._poll.unregister(self._output)

    def _wait_ms(self) -> int:
        until = min((at for at in (self._deadline, self._orphan_until) if at is not None), default=None)
        return 60_000 if until is None else max(1, int((until - time.monotonic()) * 1000) + 1)

    def _pump(self) -> bool:
        """Move some output to the log; return whether there may be more."""
        try:
            data = os.read(self._output, 65536)
        except BlockingIOError:
            return False
        self._log.write(data)
        return bool(data)

    def _reap(self) -> bool:
        """Collect what has ended; return whether nothing is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self._program:
                code = os.waitstatus_to_exitcode(status)
                self._status = code if code >= 0 else 128 - code
                if descendants():
                    self._end_rest()

    def _end(self, reason: str, *, finish: bool) -> None:
        """Ask the program to end. With `finish`, what it started gets time to come to an end by itself."""
        hurry = self._finish and not finish and self._status is not None  # whoever waited for the rest is gone
        self._finish = self._finish and finish
        if self._deadline is not None and not hurry:
            return
        self._log.say(f"{reason}: SIGTERM")
        self._ask([self._program] if self._status is None else descendants(), self._stop_s)

    def _end_rest(self) -> None:
        """The program has ended and others are left: the runs of a Dagster that was stopped, say."""
        if self._deadline is not None and self._finish:
            self._log.say(f"waiting up to {self._stop_s:g} s for what it started")
            self._deadline = time.monotonic() + self._stop_s
        else:
            self._ask(descendants(), self._stop_s)

    def _ask(self, processes: list[int], within_s: float) -> None:
        self._deadline = time.monotonic() + within_s
        for pid in processes:
            _signal(pid, signal.SIGTERM)

    def _press(self) -> bool:
        """Time is up: ask what has only been waited for, kill what has been asked. False when all was tried."""
        if self._status is not None and self._finish:
            self._finish = False
            self._ask(descendants(), LEAVE_WITHIN_S)
            return True
        self._log.say("still there after its time: killed")
        self._kill_all()
        return False

    def _kill_all(self) -> None:
        """Kill until there are none left, because what is being killed may still fork."""
        give_up = time.monotonic() + KILL_WITHIN_S
        while not self._reap() and time.monotonic() < give_up:
            for pid in descendants():
                _signal(pid, signal.SIGKILL)
            select.select([], [], [], 0.01)


def descendants() -> list[int]:
    """The children of this process, and theirs. Orphans among them are children: this process is their reaper."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                # "pid (name) state parent …"; the name may hold anything, so count from its closing bracket.
                parent = int(Path("/proc", entry, "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue  # it ended meanwhile
            children.setdefault(parent, []).append(int(entry))
    found = children.get(os.getpid(), [])
    for pid in found:  # grows while it is walked
        found.extend(children.get(pid, []))
    return found


def _past(moment: float | None) -> bool:
    return moment is not None and time.monotonic() >= moment


def describe(code: int) -> str:
    """An exit code in words."""
    if code > 128 and code - 128 in {s.value for s in signal.Signals}:
        return f"signal {signal.Signals(code - 128).name}"
    return f"exit status {code}"


def _fork(command: list[str], output: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    leash = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # this process has one thread, so it means the leash
        if os.getppid() != leash:
            os._exit(1)
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.execvp(command[0], command)  # noqa: S606  # without a shell is what is meant
    except OSError as error:
        os.write(2, f"cannot start {command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def main(argv: list[str]) -> int:
    life, stop_s, outlive_s, path, limit, *command = argv
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with suppress(OSError):  # of the descriptor of the listing itself
                os.set_inheritable(int(name), False)  # the program inherits neither the pipe nor the starter's lock
    return Leash(command, int(life), float(stop_s), float(outlive_s), Log(Path(path), int(limit))).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
