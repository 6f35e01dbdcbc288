"""The wheel of this tree in an environment of its own, as a user has it."""

import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib.metadata import PathDistribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

from tests.e2e.platform import TREE


def install(directory: Path) -> Path:
    """Build the wheel and unpack it; return the environment's Python.

    Of everything else there is what `pip install featurestore-dagster[local] pytest` brings, and nothing more: linked
    from the environment of the tests, so that no network is asked.
    """
    venv.create(directory, symlinks=True)
    python = directory / "bin" / "python"
    _run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory / "dist"))
    [wheel] = (directory / "dist").glob("*.whl")
    pip = (sys.executable, "-m", "uv", "pip", "install", "--quiet", "--offline", "--no-deps", "--python", str(python))
    _run(*pip, str(wheel))
    [packages] = directory.glob("lib/python*/site-packages")
    _link(_needed("featurestore-dagster[local]", "pytest"), packages)
    return python


def _run(*command: str) -> None:
    done = subprocess.run(command, cwd=TREE, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _needed(*wanted: str) -> Iterator[PathDistribution]:
    """The distributions that these requirements lead to, but for our own."""
    waiting, seen = [Requirement(one) for one in wanted], set[tuple[str, frozenset[str]]]()
    while waiting:
        one = waiting.pop()
        if (one.name, frozenset(one.extras)) in seen:
            continue
        seen.add((one.name, frozenset(one.extras)))
        found = distribution(one.name)
        waiting += [
            needs
            for needs in map(Requirement, found.requires or [])
            if needs.marker is None or any(needs.marker.evaluate({"extra": extra}) for extra in {"", *one.extras})
        ]
        if one.name != "featurestore-dagster":
            assert isinstance(found, PathDistribution)
            yield found


def _link(distributions: Iterator[PathDistribution], packages: Path) -> None:
    for one in distributions:
        for name in {file.parts[0] for file in one.files or []} - {"..", "__pycache__"}:
            link = packages / name
            if not link.exists():
                link.symlink_to(one.locate_file(name).resolve())
