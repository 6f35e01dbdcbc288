"""`featurestore status`"""

import json
import os
from pathlib import Path

import pytest

from featurestore_cli.commands.status import accounting
from featurestore_cli.main import main
from featurestore_cli.stack.counts import Counts
from featurestore_cli.stack.ports import Ports
from featurestore_cli.stack.state import Home, PlatformState, ProcessState, now


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("FEATURESTORE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("FEATURESTORE_REDIS_URL", f"redis://127.0.0.1:{Ports().take()}/0")  # nobody there
    home = Home(tmp_path)
    home.open()
    home.write_state(
        PlatformState(
            pid=os.getpid(),
            started_at=now(),
            ready=True,
            dagster_url="http://127.0.0.1:3000",
            processes=(
                ProcessState(name="kafka", state="ready", since=now(), address="127.0.0.1:9092", note="lag 0"),
                ProcessState(name="database", state="restarting", since=now(), note="exit status 1; again in 2 s"),
            ),
        )
    )
    return home


def test_every_process_is_shown_also_while_stores_do_not_answer(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with home.alone(print):
        assert main(["status"]) == 0
    header, kafka, database = capsys.readouterr().out.splitlines()
    assert header.split() == ["process", "state", "since", "address", "note"]
    assert kafka.split() == ["kafka", "ready", "0s", "127.0.0.1:9092", "lag", "0"]
    assert "restarting" in database


def test_for_programs(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with home.alone(print):
        assert main(["status", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["running"]
    assert value["counts"] is None
    assert [one["name"] for one in value["processes"]] == ["kafka", "database"]


def test_a_platform_that_is_not_running_is_said_so_whatever_was_written(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status"]) == 3
    assert "is not running: `featurestore up`" in capsys.readouterr().out


def test_where_every_record_is() -> None:
    counts = Counts(
        produced=1_010,
        landed=1_000,
        dead_letters=10,
        due=2_000,
        logged=1_900,
        filtered=50,
        quarantined=30,
        erased=0,
        pending=20,
        online=1_900,
        newest_event_timestamp=None,
    )
    sent, landed, due = accounting(counts).split(" · ")
    assert (sent, landed) == ("the generator sent 1 010", "landed 1 000 + dead letters 10")
    assert due == "due 2 000 = logged 1 900 + filtered 50 + quarantined 30 + pending 20"
