"""Started in order, watched, started again, stopped in reverse order; and nothing is ever left behind."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psutil

from featurestore_cli.stack.state import Home, ProcessState
from tests.services import eventually

ROOT = Path(__file__).parents[3]


class Platform:
    """The small platform, in a process of its own."""

    def __init__(self, home: Path, *words: str) -> None:
        self.home = Home(home)
        self.output = home.parent / "output"
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.featurestore_cli.stack.small_platform", str(home), *words],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
            )

    def ready(self) -> bool:
        assert self.process.poll() is None, self.output.read_text()
        state = self.home.state()
        return state is not None and state.ready and state.pid == self.process.pid

    def state(self, name: str) -> ProcessState:
        state = self.home.state()
        assert state is not None
        return next(one for one in state.processes if one.name == name)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def said(self) -> list[str]:
        return [" ".join(line.split()[:2]) for line in self.output.read_text().splitlines()]


@contextmanager
def platform(home: Path, *words: str) -> Generator[Platform]:
    """Started, and ready unless a port is among the words."""
    one = Platform(home / "data", *words)
    try:
        eventually(lambda: one.home.state() is not None if words and words[0].isdigit() else one.ready())
        yield one
    finally:
        one.process.kill()
        one.process.wait(10)
        eventually(lambda: not one.home.leftovers())


def test_started_in_order_and_stopped_in_reverse(tmp_path: Path) -> None:
    with platform(tmp_path) as one:
        family = one.family()
        one.process.send_signal(signal.SIGINT)
        assert one.process.wait(15) == 0
        assert not any(process.is_running() for process in family)
    said = one.said()
    order = ["store ready", "job starting", "job restarting", "job done", "daemon ready", "generator ready"]
    assert [line for line in said if line in order] == [*order[:2], "job restarting", "job starting", *order[3:]]
    assert one.home.path.joinpath("stopped").read_text().split() == ["generator", "daemon", "store"]
    assert one.home.path.joinpath("job-done").exists()
    assert {process.state for process in one.home.state().processes} == {"stopped"}  # type: ignore[union-attr]


def test_what_dies_is_started_again(tmp_path: Path) -> None:
    with platform(tmp_path) as one:
        [program] = psutil.Process(one.state("store").pid).children()
        program.kill()
        eventually(lambda: one.state("store").restarts == 1)
        assert one.state("store").note == "signal SIGKILL; again in 1 s"
        eventually(lambda: one.state("store").state == "ready")
        assert one.state("store").pid not in {0, program.pid}


def test_what_needs_a_port_that_somebody_has_is_not_started_until_it_is_free(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with platform(tmp_path, str(port)) as one:
            eventually(lambda: one.state("daemon").state == "restarting")
            assert f"port {port} is taken by" in one.state("daemon").note
            assert f"(process {os.getpid()}); again in" in one.state("daemon").note
            assert one.state("generator").state == "waiting"
            server.close()
            eventually(one.ready)


def test_a_second_signal_leaves_at_once(tmp_path: Path) -> None:
    with platform(tmp_path, "deaf") as one:
        family = one.family()
        one.process.send_signal(signal.SIGTERM)
        eventually(lambda: one.state("daemon").state == "stopping")
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(1.5) == 1
        assert not psutil.wait_procs(family, timeout=15)[1]


def test_kill_9_leaves_nothing_behind(tmp_path: Path) -> None:
    with platform(tmp_path, "deaf") as one:
        family = one.family()
        assert len(family) == 6  # three programs, each with its leash
        one.process.kill()
        assert not psutil.wait_procs(family, timeout=15)[1]
        assert one.home.running() is None


def test_the_next_one_waits_for_what_is_left_of_a_killed_one(tmp_path: Path) -> None:
    with platform(tmp_path, "deaf") as one:
        one.process.kill()
        one.process.wait(10)
        assert one.home.leftovers()
        with platform(tmp_path) as again:
            assert "waiting for the programs of an earlier run to end" in again.output.read_text()
            assert again.state("daemon").state == "ready"


def test_only_one_runs_on_a_data_directory(tmp_path: Path) -> None:
    with platform(tmp_path) as one:
        second = subprocess.run(
            [sys.executable, "-m", "tests.featurestore_cli.stack.small_platform", str(one.home.path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert second.returncode == 1
        assert f"is running (process {one.process.pid})" in second.stderr
        assert one.home.running() == one.process.pid
