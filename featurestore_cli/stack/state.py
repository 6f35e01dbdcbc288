"""What `up` keeps in the data directory: who it is, that it runs, what it started, and where."""

import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from featurestore.environment import read_env_file
from featurestore.errors import TerminalError
from featurestore.settings import PLATFORM_ENV
from featurestore_cli.stack.service import Say, write_private

LEFTOVERS_S = 90.0  # how long programs of an `up` that was killed may take to end


class RunningError(TerminalError):
    """There is an `up` on this data directory already."""

    def __init__(self, data_dir: Path, pid: int) -> None:
        self.pid = pid
        super().__init__(
            f"the platform of {data_dir} is running (process {pid}): `featurestore status`, `featurestore down`"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessState:
    """One program, as `status` and the board show it."""

    name: str
    state: str  # waiting | starting | ready | not ready | restarting | stopping | stopped
    since: datetime
    address: str = ""
    note: str = ""
    pid: int = 0  # of its leash; 0 when nothing of ours runs
    metrics_port: int = 0
    restarts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformState:
    """Everything that `up` started or found, as last written."""

    pid: int
    started_at: datetime
    ready: bool
    dagster_url: str
    processes: tuple[ProcessState, ...]


class Home:
    """The data directory, as `up` sees it."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir.absolute()
        self.logs = self.path / "logs"

    def open(self) -> str:
        """Make the directory, for its owner only; return the id that marks the services that belong to it."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)
        self.logs.mkdir(mode=0o700, exist_ok=True)
        file = self.path / "platform.id"
        if not file.exists():
            write_private(file, secrets.token_hex(6))
        return file.read_text().strip()

    def addresses(self) -> dict[str, str]:
        """What the last `up` wrote for all other processes."""
        return read_env_file(self.path / PLATFORM_ENV)

    def write_addresses(self, values: Mapping[str, str]) -> None:
        lines = [f"{name}={value}\n" for name, value in values.items()]
        write_private(self.path / PLATFORM_ENV, "# Written by `featurestore up`.\n" + "".join(lines))

    def write_state(self, state: PlatformState) -> None:
        """Not being able to (a full disk) must not end what runs: the next change is written again."""
        with suppress(OSError):
            write_private(self.path / "platform.json", json.dumps(asdict(state), default=datetime.isoformat, indent=1))

    def state(self) -> PlatformState | None:
        """The state as last written, whether or not anything runs now."""
        try:
            value = json.loads((self.path / "platform.json").read_text())
        except (FileNotFoundError, ValueError):
            return None
        processes = [ProcessState(**{**one, "since": _time(one["since"])}) for one in value.pop("processes")]
        return PlatformState(**{**value, "started_at": _time(value["started_at"]), "processes": tuple(processes)})

    @contextmanager
    def alone(self, say: Say) -> Generator[int]:
        """Be the only `up` here. Yields a file to be held by every leash: while one holds it, something is left.

        Raises:
            RunningError: there is another.
        """
        with self._locked("up.lock") as own:
            if own is None:
                raise RunningError(self.path, self.running() or 0)
            os.ftruncate(own, 0)
            os.pwrite(own, str(os.getpid()).encode(), 0)
            with self._locked("programs.lock", LEFTOVERS_S, say) as programs:
                if programs is None:
                    raise TerminalError(
                        f"programs of an earlier run are still there after {LEFTOVERS_S:g} s: `featurestore doctor`"
                    )
                yield programs

    def running(self) -> int | None:
        """The process id of the `up` that runs here."""
        try:
            with (self.path / "up.lock").open() as file:
                if _lock(file.fileno(), fcntl.LOCK_SH):
                    return None
                return int(file.read() or 0)
        except FileNotFoundError:
            return None

    def leftovers(self) -> bool:
        """Whether any program of an `up` is still there."""
        try:
            with (self.path / "programs.lock").open() as file:
                return not _lock(file.fileno(), fcntl.LOCK_SH)
        except FileNotFoundError:
            return False

    @contextmanager
    def _locked(self, name: str, within_s: float = 0.0, say: Say | None = None) -> Generator[int | None]:
        file = os.open(self.path / name, os.O_RDWR | os.O_CREAT, 0o600)
        never, deadline = threading.Event(), time.monotonic() + within_s
        try:
            locked = _lock(file, fcntl.LOCK_EX)
            if not locked and say:
                say("waiting for the programs of an earlier run to end")
            while not locked and time.monotonic() < deadline:
                never.wait(0.1)
                locked = _lock(file, fcntl.LOCK_EX)
            yield file if locked else None
        finally:
            os.close(file)


def now() -> datetime:
    return datetime.now(UTC)


def _lock(file: int, kind: int) -> bool:
    """Try once. The lock belongs to the open file: it is kept as long as any process holds it open."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
