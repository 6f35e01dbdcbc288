"""dead-letters list, show and replay, as people and programs see them."""

import json
from pathlib import Path

import pytest

from featurestore.landing.zone import LandingZone
from featurestore_cli.main import main
from tests.ingest import test_replay
from tests.ingest.test_replay import land


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATURESTORE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("FEATURESTORE_PROJECT", f"{test_replay.__name__}:MENDED")


def test_list_show_and_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    origin = land(LandingZone(tmp_path / "landing"))

    def said(*args: str) -> str:
        assert main(["dead-letters", *args]) == 0
        return capsys.readouterr().out

    listed = said("list")
    assert "clicks      2  page: not declared" in listed
    assert origin.batch_id in listed  # which `show` takes
    assert "1 replayed, 2 still refused" in said("replay")
    assert "0 replayed, 2 still refused" in said("replay", origin.batch_id)
    assert "the Kafka key is not the text of user_id" in said("replay", "--source", "clicks")
    shown = json.loads(said("show", origin.batch_id, "--json"))
    assert [(one["row"], one["replayed"]) for one in shown] == [(1, False), (2, False), (3, True)]
    assert json.loads(said("list", "--json"))[0]["count"] == 1


def test_a_name_that_stands_for_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dead-letters", "replay", "nothing"]) == 1
    assert "nothing landed is called 'nothing'" in capsys.readouterr().err


def test_without_dead_letters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dead-letters", "list"]) == 0
    assert "there are no dead letters" in capsys.readouterr().err
