"""The command line: cheap to ask, clear when it fails."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from featurestore_cli.main import COMMANDS, main

CHEAP_S = 0.3  # of CPU; what people feel when they ask for help


def test_help_is_cheap() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "featurestore_cli.main", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert all(name in done.stdout for name in COMMANDS)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < CHEAP_S


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert "usage: featurestore" in capsys.readouterr().out


def test_features_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features", "list"]) == 0
    assert "clicks_7d" in capsys.readouterr().out
    assert main(["features", "show", "debt_to_income_ratio"]) == 0
    assert "debt / nullif(income, 0)" in capsys.readouterr().out


def test_an_unknown_feature_is_one_line_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features", "show", "clicks_8d"]) == 1
    assert capsys.readouterr().err == "error: the project has no feature 'clicks_8d'; did you mean 'clicks_7d'?\n"


def test_a_service_that_is_down_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEATURESTORE_REDIS_URL", "redis://:secret@127.0.0.1:1/0")
    assert main(["get", "user", "1"]) == 3
    message = capsys.readouterr().err
    assert "Redis does not answer at 127.0.0.1:1" in message
    assert "is this the directory of your project?" in message
    assert "secret" not in message


def test_a_setting_with_a_mistake_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATURESTORE_KAFKA_BROKER", "x")
    assert main(["features", "list"]) == 1
    assert "did you mean FEATURESTORE_KAFKA_BROKERS?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["get", "user", "--limit", "-1"],
        ["get", "user", "--limit", "0"],
        ["logs", "-n", "-5"],
        ["down", "--timeout", "nan"],
    ],
)
def test_a_number_with_a_mistake_is_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert f"argument {words[-2]}" in capsys.readouterr().err.replace("-n/--lines", "-n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["init", "{file}"], "{file}: Not a directory"),
        (["backup", "{file}"], "{file}: File exists"),
        (["backup", "{file}", "--verify"], "{file} holds no whole backup"),
        (["logs", "nothing"], "no process 'nothing' has written anything"),
        (["dead-letters", "list", "--source", "profile"], "did you mean 'profiles'?"),
        (["dead-letters", "replay", "--source", "profile"], "did you mean 'profiles'?"),
        (["training-set", "reproduce", "{file}"], "{file}: this is not the receipt of a training set"),
        (["apply"], "no Dagster runs here: `featurestore up`"),
        (["sql", "SELECT 1"], "FEATURESTORE_REDIS_URL"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FEATURESTORE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("FEATURESTORE_REDIS_URL", "127.0.0.1:6379")
    file = tmp_path / "file"
    file.write_text("of something else")
    assert main([word.format(file=file) for word in words]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message.format(file=file) in line
