"""What people see of the running platform."""

import io
import threading
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from featurestore.errors import StoreUnavailableError
from featurestore_cli.stack import board
from featurestore_cli.stack.board import Board, Counting, Lines, summary
from featurestore_cli.stack.counts import Counts
from featurestore_cli.stack.state import ProcessState, now
from tests.services import eventually

COUNTS = Counts(
    produced=1204331,
    landed=1204302,
    dead_letters=29,
    due=1204302,
    logged=1204290,
    filtered=0,
    quarantined=12,
    erased=0,
    pending=0,
    online=1204290,
    newest_event_timestamp=datetime(2026, 1, 1, tzinfo=UTC),
)


def process(state: str, note: str = "") -> ProcessState:
    return ProcessState(name="kafka", state=state, since=now(), address="127.0.0.1:9092", note=note)


def never() -> Counts:
    raise AssertionError


def test_a_line_for_each_change_of_a_state() -> None:
    said: list[str] = []
    lines = Lines(said.append, None, "http://127.0.0.1:3000")
    for one in (
        process("starting"),
        process("starting", "busy"),
        process("ready"),
        process("restarting", "exit status 1"),
    ):
        lines.changed(one)
    lines.ready(4.25)
    lines.close()
    assert [" ".join(line.split()) for line in said] == [
        "kafka starting",
        "kafka ready 127.0.0.1:9092",
        "kafka restarting (exit status 1)",
        "the platform is ready after 4.2 s; Dagster: http://127.0.0.1:3000",
    ]


def test_then_a_line_of_counts_every_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "COUNT_S", 0.01)
    monkeypatch.setattr(board, "SUMMARY_S", 0.0)
    said: list[str] = []
    counting = Counting(lambda: COUNTS)
    lines = Lines(said.append, counting, "")
    lines.ready(1.0)
    eventually(lambda: counting.latest is not None)
    lines.refresh([])
    lines.close()
    assert said[-1].startswith(
        "produced 1 204 331 · landed 1 204 302 · dead letters 29 · logged 1 204 290 · online 1 204 290"
    )


def test_the_age_of_the_newest_feature_is_told() -> None:
    newest = datetime(2026, 1, 1, tzinfo=UTC)
    assert summary(COUNTS, newest + timedelta(seconds=12)).endswith("newest feature 12s ago")


def test_a_store_that_does_not_answer_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "COUNT_S", 0.01)
    asked = threading.Event()

    def read() -> Counts:
        asked.set()
        raise StoreUnavailableError("Redis", "127.0.0.1:6379")

    counting = Counting(read)
    counting.start()
    assert asked.wait(10)
    assert counting.latest is None
    counting.stop()


def test_the_board_shows_every_process_the_counts_and_where_dagster_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "COUNT_S", 0.01)
    output = io.StringIO()
    counting = Counting(lambda: COUNTS)
    drawn = Board(Console(file=output, force_terminal=True, width=110), counting, "http://127.0.0.1:3000")
    drawn.refresh([process("starting")])
    assert "starting …" in output.getvalue()
    drawn.ready(3.0)
    eventually(lambda: counting.latest is not None)
    drawn.changed(process("ready"))
    drawn.refresh([process("ready", "lag 0")])
    drawn.changed(process("stopping"))
    drawn.refresh([process("stopping")])
    drawn.close()
    shown = output.getvalue()
    for words in ("draining", "127.0.0.1:9092", "lag 0", "produced 1 204 331", "http://127.0.0.1:3000", "Ctrl-C"):
        assert words in shown
