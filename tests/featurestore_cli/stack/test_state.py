"""The data directory of `up`: private, with an id for ever, one `up` at a time."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from featurestore.settings import Settings
from featurestore_cli.stack.state import Home, PlatformState, ProcessState, RunningError


def test_it_is_private_and_keeps_its_id(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o755)
    first = Home(data_dir).open()
    assert len(first) == 12
    assert Home(data_dir).open() == first
    assert data_dir.stat().st_mode & 0o777 == 0o700


def test_every_other_process_finds_the_addresses(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.write_addresses({"FEATURESTORE_REDIS_URL": "redis://:p=w@127.0.0.1:7000/0"})
    assert (tmp_path / "platform.env").stat().st_mode & 0o777 == 0o600
    assert home.addresses() == {"FEATURESTORE_REDIS_URL": "redis://:p=w@127.0.0.1:7000/0"}
    assert Settings.from_env({"FEATURESTORE_DATA_DIR": str(tmp_path)}).redis.url == "redis://:p=w@127.0.0.1:7000/0"


def test_the_state_comes_back_as_it_was_written(tmp_path: Path) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    state = PlatformState(
        pid=7,
        started_at=at,
        ready=True,
        dagster_url="http://127.0.0.1:3000",
        processes=(ProcessState(name="kafka", state="ready", since=at, address="127.0.0.1:9092", metrics_port=9),),
    )
    home = Home(tmp_path)
    assert home.state() is None
    home.write_state(state)
    assert home.state() == state


def test_a_state_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    state = PlatformState(pid=7, started_at=datetime.now(UTC), ready=True, dagster_url="", processes=())
    Home(tmp_path / "not-there").write_state(state)


def test_a_second_up_is_told_about_the_first(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.open()
    assert home.running() is None
    with home.alone(print):
        assert home.running() == os.getpid()
        with pytest.raises(RunningError, match=f"is running \\(process {os.getpid()}\\)"), home.alone(print):
            pass
    assert home.running() is None
    assert not home.leftovers()


def test_whoever_holds_the_file_is_a_leftover(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.open()
    with home.alone(print) as held:
        kept = os.dup(held)
    assert home.leftovers()
    os.close(kept)
    assert not home.leftovers()
