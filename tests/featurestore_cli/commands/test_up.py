"""`featurestore up`: the real platform is killed, refused, started again."""

import os
import signal
from collections.abc import Generator
from pathlib import Path

import psutil
import pytest

from featurestore.settings import Settings
from featurestore_cli.stack.ports import Ports
from featurestore_cli.stack.state import Home
from tests.e2e.platform import Platform

pytestmark = [pytest.mark.e2e, pytest.mark.services, pytest.mark.timeout(300)]


@pytest.fixture
def platform(tmp_path: Path) -> Generator[Platform]:
    one = Platform(tmp_path / "data")
    yield one
    one.command("down", within_s=120)
    assert not Home(one.data_dir).leftovers()


def test_kill_9_leaves_nothing_and_the_next_one_finds_its_place(platform: Platform) -> None:
    platform.said("up", "-d", "--no-generator", within_s=240)
    home = Home(platform.data_dir)
    addresses, state = home.addresses(), home.state()
    assert state is not None
    assert {"redis", "kafka", "azurite", "database", "dagster-web"} <= {one.name for one in state.processes}
    assert "generator" not in {one.name for one in state.processes}

    second = platform.command("up")
    assert second.returncode == 1
    assert f"is running (process {state.pid})" in second.stderr

    everything = platform.processes()
    assert state.pid in {process.pid for process in everything}
    os.kill(state.pid, signal.SIGKILL)
    assert not psutil.wait_procs(everything, timeout=60)[1]
    assert platform.processes() == []

    platform.said("up", "-d", "--no-generator", within_s=240)
    assert home.addresses() == addresses
    platform.said("doctor")


def test_what_cannot_start_is_said_and_nothing_is_left(platform: Platform) -> None:
    nobody = f"127.0.0.1:{Ports().take()}"
    broken = Platform(platform.data_dir, {"PROJECT": "no.such.module:PROJECT", "KAFKA_BROKERS": nobody})
    failed = broken.command("up", "-d", within_s=60)
    assert failed.returncode == 1
    assert "there is no module 'no.such.module'" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert platform.processes() == []
    assert Settings.from_env(platform.env).kafka.brokers == Settings().kafka.brokers
