"""Start and stop the programs of the platform, each on a leash of its own."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from featurestore_cli.stack import leash
from featurestore_cli.stack.service import NotStartedError, Program

LOG_BYTES = 8 * 2**20  # per file; the leash keeps two older ones


class Child:
    """A started program. It ends with this object's process, however that ends, and so do all its descendants."""

    def __init__(self, program: Program, popen: "subprocess.Popen[bytes]", life: int, log: Path) -> None:
        self.program, self.log = program, log
        self._popen, self._life = popen, life

    @property
    def pid(self) -> int:
        """Of the leash; the program is its child."""
        return self._popen.pid

    def exit_code(self) -> int | None:
        """None while it runs; 128 + signal when a signal ended it."""
        code = self._popen.poll()
        if code is None:
            return None
        self._let_go()
        return code if code >= 0 else 128 - code  # the leash itself was killed, or asked to stop before it had begun

    def wait_ready(self, *, pause_s: float = 0.05) -> None:
        """Wait until the program answers.

        Raises:
            NotStartedError: it ended, or did not answer in its time (it is stopped then).
        """
        never, deadline = threading.Event(), time.monotonic() + self.program.ready_within_s
        while not self.program.answers():
            if (code := self.exit_code()) is not None:
                raise NotStartedError(self.program.name, f"ended with {leash.describe(code)}", self.log)
            if time.monotonic() > deadline:
                self.stop()
                reason = f"did not answer within {self.program.ready_within_s:g} s"
                raise NotStartedError(self.program.name, reason, self.log)
            never.wait(pause_s)

    def ask_to_stop(self) -> None:
        """Send SIGTERM; the leash kills what is not gone within the program's `stop_within_s`."""
        if self.exit_code() is None:
            self._popen.terminate()

    def stop(self) -> int:
        """Ask to stop and wait for the end, which comes in bounded time; return the exit code."""
        self.ask_to_stop()
        try:
            self._popen.wait(longest_stop_s(self.program))
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait(5.0)
        code = self.exit_code()
        assert code is not None
        return code

    def _let_go(self) -> None:
        if self._life >= 0:
            os.close(self._life)
            self._life = -1


def longest_stop_s(program: Program) -> float:
    """After that time the leash itself is at fault: its program's time, that of what this leaves behind, killing."""
    return 2 * program.stop_within_s + leash.LEAVE_WITHIN_S + leash.KILL_WITHIN_S + 5.0


def start(program: Program, logs: Path, env: Mapping[str, str], *, held: tuple[int, ...] = ()) -> Child:
    """Start `program` with its output in `logs`/NAME.log.

    The files `held` stay open in the leash until the program and its descendants are gone: a lock held by them shows
    whether anything of the platform is left.
    """
    logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = logs.absolute() / f"{program.name}.log"
    watched, life = os.pipe()
    times = (f"{program.stop_within_s:g}", f"{program.outlive_s:g}")
    script = [sys.executable, "-I", "-S", leash.__file__, str(watched), *times, str(log), str(LOG_BYTES)]
    try:
        with log.open("ab") as errors:
            popen = subprocess.Popen(
                [*script, *program.command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd=program.directory,
                env={**env, **program.env},
                pass_fds=(watched, *held),
                start_new_session=True,  # Ctrl-C in a terminal reaches the starter only
            )
    except BaseException:
        os.close(life)
        raise
    finally:
        os.close(watched)
    return Child(program, popen, life, log)
