"""`featurestore views`: what there is, and which version counts."""

import argparse
import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest

import featurestore as fs
from featurestore.errors import TerminalError
from featurestore.settings import Settings
from featurestore.testing.memory import MemoryStore
from featurestore_cli.commands import views

USER = fs.Entity("user", key="user_id")
SALES = fs.KafkaSource("sales", timestamp="at", schema={"user_id": int, "amount": float})
V1 = fs.FeatureView("last_sale", USER, SALES, [fs.Feature("last_amount", float, "amount", online=True)])
V2 = replace(V1, where="amount > 0", version=2)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """The store that the command finds."""
    store = MemoryStore(fs.Project((V1, V2)))
    store.send(SALES, {"user_id": 1, "at": datetime.now(UTC), "amount": 5.0})

    @contextmanager
    def connect(*_: object) -> Generator[MemoryStore]:
        yield store

    monkeypatch.setattr(views, "connect", connect)
    monkeypatch.setattr(views, "load_project", lambda _: fs.Project((V2,)))
    return store


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    views.add_arguments(parser)
    return views.run(parser.parse_args(words), Settings())


@pytest.mark.usefixtures("store")
def test_every_version_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "--json") == 0
    found = [(one["version"], one["state"], one["batches"], one["rows"]) for one in json.loads(capsys.readouterr().out)]
    assert found == [(1, "beside, not declared", 1, 1), (2, "active", 1, 1)]
    assert run("list") == 0
    assert (
        capsys.readouterr().out.splitlines()[2].startswith("last_sale        2  active                      1     1  ")
    )


def test_one_command_goes_back(store: MemoryStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("activate", "last_sale", "1") == 0
    assert capsys.readouterr().out == "last_sale v1 is active\n"
    run("list", "--json")
    assert [one["state"] for one in json.loads(capsys.readouterr().out)] == ["active, not declared", "beside"]


@pytest.mark.usefixtures("store")
def test_a_version_that_is_not_there_is_named() -> None:
    with pytest.raises(TerminalError, match="view 'last_sale' has no version 3 in the log"):
        run("activate", "last_sale", "3")
