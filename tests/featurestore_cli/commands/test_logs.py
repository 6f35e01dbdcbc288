"""`featurestore logs`"""

from pathlib import Path

import pytest

from featurestore_cli.commands.logs import _Log
from featurestore_cli.main import main
from featurestore_cli.stack.state import Home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("FEATURESTORE_DATA_DIR", str(tmp_path))
    home = Home(tmp_path)
    home.open()
    (home.logs / "kafka.log").write_text("".join(f"line {n}\n" for n in range(100)))
    (home.logs / "redis.log").write_text("ready\n")
    return home


def test_the_last_lines_of_a_process(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "kafka", "-n", "2"]) == 0
    assert capsys.readouterr().out == "line 98\nline 99\n"


def test_without_a_name_each_line_says_whose_it_is(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "-n", "1"]) == 0
    assert capsys.readouterr().out == "kafka          | line 99\nredis          | ready\n"


def test_a_name_that_is_not_there(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "kafak"]) == 1
    assert "there is kafka, redis" in capsys.readouterr().err


def test_following_goes_on_in_the_next_file(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    path = home.logs / "kafka.log"
    log = _Log("kafka", path, "")
    with path.open("a") as file:
        file.write("one\ntw")
    log.show_new()
    with path.open("a") as file:
        file.write("o\nlast of the old\n")
    path.rename(home.logs / "kafka.log.1")
    path.write_text("first of the new\n")
    log.show_new()
    log.close()
    assert capsys.readouterr().out.splitlines() == ["one", "two", "last of the old", "first of the new"]
