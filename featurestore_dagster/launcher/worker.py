"""The process that works on a run, as the run's tag names it."""

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

WORKER_TAG = ".dagster/featurestore_worker"  # Dagster's pages show no tag with this prefix
_STATE, _STARTED = 0, 19  # fields of /proc/PID/stat behind the name


@dataclass(frozen=True, slots=True)
class Worker:
    """A process on this machine; a process that got the same id later is another one."""

    pid: int
    started: int  # clock ticks since the machine's start
    namespace: str  # in which the id counts: of this machine, or of a container

    @classmethod
    def this(cls) -> "Worker":
        pid = os.getpid()
        return cls(pid, int(_stat(pid)[_STARTED]), _namespace())

    @classmethod
    def of(cls, tag: str) -> "Worker":
        pid, started, namespace = tag.split(" ", 2)
        return cls(int(pid), int(started), namespace)

    @property
    def tag(self) -> str:
        return f"{self.pid} {self.started} {self.namespace}"

    @property
    def is_near(self) -> bool:
        """Whether it can be looked at and signalled from here."""
        return self.namespace == _namespace()

    @property
    def is_alive(self) -> bool:
        """Whether it runs; one that is not near is taken to run."""
        if not self.is_near:
            return True
        try:
            stat = _stat(self.pid)
        except (FileNotFoundError, ProcessLookupError):
            return False
        return stat[_STATE] != "Z" and int(stat[_STARTED]) == self.started

    def interrupt(self) -> bool:
        """Ask it to end. False if it is not there, or not near."""
        if self.is_near and self.is_alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
                return True
        return False


def _stat(pid: int) -> list[str]:
    # "pid (name) state parent …"; the name may hold anything, so count from its closing bracket.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink())
