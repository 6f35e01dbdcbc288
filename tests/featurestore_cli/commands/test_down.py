"""`featurestore down`"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from featurestore_cli.main import main
from featurestore_cli.stack.state import Home
from tests.services import eventually

ROOT = Path(__file__).parents[3]


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEATURESTORE_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def small_platform(data_dir: Path) -> "subprocess.Popen[bytes]":
    one = subprocess.Popen(
        [sys.executable, "-m", "tests.featurestore_cli.stack.small_platform", str(data_dir)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    eventually(lambda: (state := Home(data_dir).state()) is not None and state.ready)
    return one


def test_nothing_to_stop(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["down"]) == 0
    assert capsys.readouterr().out == "the platform is not running\n"


def test_it_waits_until_everything_is_gone(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with small_platform(data_dir) as platform:
        assert main(["down"]) == 0
        assert platform.wait(5) == 0
    assert capsys.readouterr().out == f"stopping (process {platform.pid})\neverything has stopped\n"
    assert not Home(data_dir).leftovers()


def test_it_does_not_wait_for_ever(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with small_platform(data_dir) as platform:
        os.kill(platform.pid, signal.SIGSTOP)
        try:
            assert main(["down", "--timeout", "0.3"]) == 1
        finally:
            os.kill(platform.pid, signal.SIGCONT)
        assert "not everything has ended within 0.3 s" in capsys.readouterr().err
        assert main(["down"]) == 0
