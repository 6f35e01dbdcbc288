"""Programs on a leash: whatever ends their starter ends them and everything that they started."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from featurestore_cli.stack.processes import Child, start
from featurestore_cli.stack.service import NotStartedError, Program
from tests.services import ENV, eventually

ROOT = Path(__file__).parents[3]

# A program that forks, as Dagster does: a child in a session of its own whose parent is gone, deaf to SIGTERM.
FORKS = """
import os, pathlib, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
os.wait()
print("forked", flush=True)
time.sleep(600)
"""

# Ends on SIGTERM at once; its child goes on for a moment, as a run of Dagster does.
WORKS_ON = """
import os, pathlib, signal, sys, time
parent = os.getpid()
if os.fork() == 0:
    while os.getppid() == parent:
        time.sleep(0.01)
    time.sleep(0.3)
    pathlib.Path(sys.argv[1]).write_text("done")
    os._exit(0)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
print("forked", flush=True)
time.sleep(600)
"""

STARTS = """
import os, pathlib, sys, time
from featurestore_cli.stack.processes import start
from featurestore_cli.stack.service import Program
command = (sys.executable, "-c", sys.argv[1], sys.argv[2])
program = Program(name="forks", command=command, answers=lambda: True, stop_within_s=0.5)
child = start(program, pathlib.Path(sys.argv[3]), os.environ)
print(child.pid, flush=True)
time.sleep(600)
"""


def python(code: str, *arguments: str, name: str = "program", **how: float) -> Program:
    return Program(
        name=name,
        command=(sys.executable, "-c", textwrap.dedent(code), *arguments),
        answers=lambda: False,
        **how,  # type: ignore[arg-type]
    )


def ended(child: Child) -> bool:
    return child.exit_code() is not None


def test_kill_9_of_the_starter_ends_the_program_and_its_orphans(tmp_path: Path) -> None:
    orphan = tmp_path / "orphan"
    with subprocess.Popen(
        [sys.executable, "-c", STARTS, FORKS, str(orphan), str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as starter:
        assert starter.stdout is not None
        leash = psutil.Process(int(starter.stdout.readline()))
        eventually(lambda: orphan.exists() and orphan.read_text() != "")
        family = [leash, *leash.children(recursive=True)]
        assert int(orphan.read_text()) in [process.pid for process in family]
        starter.kill()
    _, left = psutil.wait_procs(family, timeout=15)
    assert not left
    assert "the process that started it is gone" in (tmp_path / "forks.log").read_text()


def test_kill_9_of_the_leash_ends_the_program(tmp_path: Path) -> None:
    child = start(python("import time; time.sleep(600)"), tmp_path, ENV)
    eventually(lambda: len(psutil.Process(child.pid).children()) == 1)
    [program] = psutil.Process(child.pid).children()
    os.kill(child.pid, signal.SIGKILL)
    assert not psutil.wait_procs([program], timeout=15)[1]
    assert child.stop() == 128 + signal.SIGKILL


def test_stop_asks_first(tmp_path: Path) -> None:
    code = """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("drained"))
        print("up", flush=True)
        time.sleep(600)
    """
    child = start(python(code), tmp_path, ENV)
    eventually(lambda: "up\n" in child.log.read_text())
    assert child.stop() == 1
    assert "drained" in child.log.read_text()


def test_stop_kills_what_does_not_listen(tmp_path: Path) -> None:
    code = """
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("up", flush=True)
        time.sleep(600)
    """
    child = start(python(code, stop_within_s=0.3), tmp_path, ENV)
    eventually(lambda: "up\n" in child.log.read_text())
    assert child.stop() == 128 + signal.SIGKILL
    assert "killed" in child.log.read_text()


def test_what_an_ended_program_leaves_behind_is_ended_too(tmp_path: Path) -> None:
    orphan = tmp_path / "orphan"
    code = FORKS.replace("os.wait()", "sys.exit(3)")
    child = start(python(code, str(orphan), stop_within_s=0.5), tmp_path, ENV)
    eventually(lambda: ended(child))
    assert child.exit_code() == 3
    if orphan.exists():  # it may have been ended before it could say its name
        assert not psutil.pid_exists(int(orphan.read_text()))


def test_what_a_stopped_program_began_may_come_to_its_end(tmp_path: Path) -> None:
    work = tmp_path / "work"
    child = start(python(WORKS_ON, str(work)), tmp_path, ENV)
    eventually(lambda: "forked\n" in child.log.read_text())
    assert child.stop() == 0
    assert work.read_text() == "done"


def test_what_a_stopped_program_began_has_its_time_only(tmp_path: Path) -> None:
    work = tmp_path / "work"
    child = start(python(WORKS_ON.replace("0.3", "600"), str(work), stop_within_s=0.3), tmp_path, ENV)
    eventually(lambda: "forked\n" in child.log.read_text())
    assert child.stop() == 0
    assert not work.exists()


def test_a_program_that_ends_while_it_is_waited_for_is_shown_with_its_last_words(tmp_path: Path) -> None:
    child = start(python("raise SystemExit('no such port')", name="kafka"), tmp_path, ENV)
    with pytest.raises(NotStartedError, match=r"kafka ended with exit status 1; the end of (?s:.*)no such port"):
        child.wait_ready()


def test_a_program_that_never_answers_is_stopped(tmp_path: Path) -> None:
    child = start(python("import time; time.sleep(600)", ready_within_s=0.2), tmp_path, ENV)
    with pytest.raises(NotStartedError, match=r"did not answer within 0\.2 s"):
        child.wait_ready()
    assert child.exit_code() == 128 + signal.SIGTERM


def test_a_program_that_does_not_exist(tmp_path: Path) -> None:
    program = Program(name="nothing", command=("no-such-program",), answers=lambda: False)
    child = start(program, tmp_path, ENV)
    with pytest.raises(NotStartedError, match="cannot start no-such-program"):
        child.wait_ready()


def test_logs_are_turned_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurestore_cli.stack.processes.LOG_BYTES", 100_000)
    child = start(python("for n in range(30_000): print(n, 'x' * 20)"), tmp_path, ENV)
    eventually(lambda: ended(child))
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"program.log", "program.log.1", "program.log.2"}
    assert max(sizes.values()) <= 100_000
    assert "29999 x" in child.log.read_text()


def test_the_program_inherits_neither_blocked_signals_nor_open_files(tmp_path: Path) -> None:
    code = "import os, signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []), len(os.listdir('/proc/self/fd')))"
    held = os.open(tmp_path, os.O_RDONLY)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        child = start(python(code), tmp_path, ENV, held=(held,))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(held)
    eventually(lambda: ended(child))
    assert "set() 4\n" in child.log.read_text()  # standard input, output and error, and the listing itself
