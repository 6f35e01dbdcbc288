"""`featurestore up` where it cannot; where it can, see tests/e2e/test_platform.py."""

from collections.abc import Generator
from pathlib import Path

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


def test_what_cannot_start_is_said_and_nothing_is_left(platform: Platform) -> None:
    nobody = f"127.0.0.1:{Ports().take()}"
    broken = Platform(platform.data_dir, {"PROJECT": "no.such.module:PROJECT", "KAFKA_BROKERS": nobody})
    failed = broken.command("up", "-d", within_s=60)
    assert failed.returncode == 1
    assert "there is no module 'no.such.module'" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert platform.processes() == []
    assert Settings.from_env(platform.env).kafka.brokers == Settings().kafka.brokers
