"""A platform of four small programs under the real supervisor: `python -m … DIR [deaf] [PORT]`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from featurestore_cli.output import say
from featurestore_cli.stack.service import Program
from featurestore_cli.stack.state import Home, PlatformState, ProcessState, now
from featurestore_cli.stack.supervisor import Supervisor
from featurestore_cli.stack.unit import GENERATOR, INGEST, SERVICES, Unit

# Says in a file that it is up; when it is asked to stop, it writes its name down and ends.
WORKS = """
import pathlib, signal, sys, time
home, name = pathlib.Path(sys.argv[1]), sys.argv[2]
up = home / f"{name}.up"
def stop(*_):
    up.unlink()
    with (home / "stopped").open("a") as file:
        file.write(f"{name}\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in sys.argv else stop)
up.touch()
while True:
    time.sleep(60)
"""

# Fails the first time.
JOB = """
import pathlib, sys
tried = pathlib.Path(sys.argv[1], "tried")
if not tried.exists():
    tried.touch()
    sys.exit("not yet")
"""


class Lines:
    """Says each change."""

    def changed(self, process: ProcessState) -> None:
        say(f"{process.name} {process.state} {process.note}")

    def ready(self, after_s: float) -> None:
        say("ready")

    def refresh(self, processes: Sequence[ProcessState]) -> None:
        pass


def program(home: Path, name: str, *words: str) -> Program:
    """`words`: "deaf" does not hear SIGTERM; a number is a port that it needs."""
    up = home / f"{name}.up"
    command = (sys.executable, "-c", WORKS, str(home), name, *words)
    ports = tuple(int(word) for word in words if word.isdigit())
    return Program(name=name, command=command, answers=up.exists, ports=ports, stop_within_s=2.0)


def main(directory: str, *words: str) -> None:
    home = Home(Path(directory))
    home.open()
    job = Program(name="job", command=(sys.executable, "-c", JOB, directory), answers=lambda: False)
    units = (
        Unit(program=program(home.path, "store"), wave=SERVICES),
        Unit(program=job, after=("store",), once=True, when_ready=(home.path / "job-done").touch),
        Unit(program=program(home.path, "daemon", *words), after=("job",), wave=INGEST),
        Unit(program=program(home.path, "generator"), after=("daemon",), wave=GENERATOR),
    )
    started_at = now()

    def save(processes: Sequence[ProcessState], ready: bool) -> None:
        home.write_state(
            PlatformState(
                pid=os.getpid(), started_at=started_at, ready=ready, dagster_url="", processes=tuple(processes)
            )
        )

    with home.alone(say) as held:
        Supervisor(units, logs=home.logs, env=os.environ, held=(held,), report=Lines(), save=save).run()  # noqa: TID251
    say("over")


if __name__ == "__main__":
    main(*sys.argv[1:])
