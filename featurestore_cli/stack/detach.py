"""`up` in the background: start it, and wait until it is ready."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from featurestore_cli.output import complain, say
from featurestore_cli.stack.service import last_lines
from featurestore_cli.stack.state import Home, PlatformState, ProcessState, RunningError, now

LOG_NAME = "up.log"
LOG_BYTES = 2 * 2**20
FAILURES, PATIENCE_S = 3, 60.0  # of one program: after so many, or so long without an answer, the start is given up


def start_detached(home: Home, environ: Mapping[str, str], *, generator: bool | None) -> int:
    """Start `up` in a session of its own; return when everything is ready, or it is given up.

    Raises:
        RunningError: it runs already.
    """
    home.open()
    if pid := home.running():
        raise RunningError(home.path, pid)
    flags = [] if generator is None else ["--generator" if generator else "--no-generator"]
    log = home.logs / LOG_NAME
    shown = log.stat().st_size if log.exists() else 0
    with (home.logs / "up.errors").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "featurestore_cli.main", "up", "--detached", *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=dict(environ),
            start_new_session=True,
        )
    never = threading.Event()
    try:
        while process.poll() is None:
            shown = _show(log, shown)
            state = home.state()
            if state and state.pid == process.pid and (state.ready or hopeless(state)):
                break
            never.wait(0.2)
    except KeyboardInterrupt:
        process.send_signal(signal.SIGTERM)
        raise
    _show(log, shown)
    return _outcome(home, process)


def _outcome(home: Home, process: "subprocess.Popen[bytes]") -> int:
    state = home.state()
    if process.poll() is not None:
        for line in last_lines(home.logs / "up.errors", 20):
            complain(line)
        return process.returncode or 1
    if state and state.ready:
        say("it runs in the background: `featurestore status`, `featurestore logs`, `featurestore down`")
        process.returncode = 0  # it is not waited for
        return 0
    for one in hopeless(state) if state else ():
        complain(f"error: {one.name} does not start: {one.note} (`featurestore logs {one.name}`)")
    complain("stopping everything")
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=300)
    return 1


def hopeless(state: PlatformState) -> list[ProcessState]:
    """Those for which it makes no sense to wait any longer."""
    since = now() - timedelta(seconds=PATIENCE_S)
    return [
        one for one in state.processes if one.restarts >= FAILURES or (one.state == "not ready" and one.since < since)
    ]


def _show(log: Path, position: int) -> int:
    """Pass on what was written to the log since `position`."""
    try:
        with log.open("rb") as file:
            if position > file.seek(0, os.SEEK_END):
                position = 0  # it was turned over
            file.seek(position)
            new = file.read()
    except FileNotFoundError:
        return 0
    if new:
        say(new.decode(errors="replace").rstrip("\n"))
    return position + len(new)
