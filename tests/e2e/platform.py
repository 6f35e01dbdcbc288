"""A platform of one's own for a test: started and stopped with the command that users type."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from featurestore.settings import Settings
from tests.services import ENV

TREE = Path(__file__).parents[2]
UP_WITHIN_S, DOWN_WITHIN_S = 240, 90


@dataclass
class Platform:
    """`featurestore` over a data directory; `settings` are FEATURESTORE_* variables without the prefix."""

    data_dir: Path
    given: Mapping[str, object] = field(default_factory=dict[str, object])
    directory: Path = TREE  # where the user stands
    python: Path = Path(sys.executable)

    @property
    def env(self) -> dict[str, str]:
        plain = {name: value for name, value in ENV.items() if not name.startswith(("FEATURESTORE_", "DAGSTER_"))}
        given = {f"FEATURESTORE_{name}": str(value) for name, value in self.given.items()}
        return {**plain, **given, "FEATURESTORE_DATA_DIR": str(self.data_dir), "PYTHONWARNINGS": "default"}

    @property
    def settings(self) -> Settings:
        return Settings.from_env(self.env)

    def command(self, *words: str, within_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run `featurestore WORDS`."""
        return subprocess.run(
            [str(self.python), "-m", "featurestore_cli.main", *words],
            cwd=self.directory,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )

    def said(self, *words: str, within_s: float = 60) -> str:
        """Run a command that has to work, and return what it says."""
        done = self.command(*words, within_s=within_s)
        assert done.returncode == 0, f"featurestore {' '.join(words)}: {done.stdout}\n{done.stderr}\n{self.logs()}"
        return done.stdout

    def sql(self, query: str) -> list[dict[str, Any]]:
        """Ask the database service."""
        return json.loads(self.said("sql", query, "--json"))

    def up(self, *options: str) -> float:
        """Start in the background; return after how many seconds it was ready."""
        began = time.monotonic()
        self.said("up", "-d", *options, within_s=UP_WITHIN_S)
        return time.monotonic() - began

    @contextmanager
    def running(self, *options: str) -> Generator["Platform"]:
        """Started, and stopped at the end, whatever is left of it."""
        try:
            self.up(*options)
            yield self
        finally:
            self.command("down", within_s=DOWN_WITHIN_S)
            for process in self.processes():
                process.kill()

    def down(self) -> None:
        self.said("down", within_s=DOWN_WITHIN_S)

    def processes(self) -> list[psutil.Process]:
        """Every process that belongs to this platform."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            try:
                belongs = process.environ().get("FEATURESTORE_DATA_DIR") == str(self.data_dir)
                if belongs and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def logs(self) -> str:
        """The ends of all logs, for the message of a test that fails."""
        ends = [
            f"== {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in self.data_dir.glob("logs/*.log")
        ]
        return "\n".join(ends)


def wait_until(condition: Callable[[], bool], within_s: float, what: str, platform: Platform) -> None:
    """Poll until the condition holds; fail with the platform's logs."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}\n{platform.logs()}"
        time.sleep(0.5)  # noqa: TID251  # polls another process; the condition above decides


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes))
