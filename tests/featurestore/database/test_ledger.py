"""What is in the ledger is found there, whichever way it came in, and nothing else is."""

from collections.abc import Generator
from datetime import datetime

import duckdb
import pytest

from featurestore.database import ledger
from featurestore.database.connection import open_database
from featurestore.database.ledger import AppliedBatches
from tests.featurestore.database.examples import ACTIVITY, line

NOW = datetime(2026, 1, 31, 12)  # noqa: DTZ001  # as the table has it
TARGET = ACTIVITY.target


@pytest.fixture
def connection() -> Generator[duckdb.DuckDBPyConnection]:
    with open_database() as opened:
        yield opened


def test_what_is_appended_is_found_by_this_process_and_the_next(connection: duckdb.DuckDBPyConnection) -> None:
    applied = AppliedBatches(connection)
    assert applied.commit_seqs(["a", "b"]) == {}
    applied.append([(line("a", 1), 7), (line("b", 2), 8), (line("a", 1, target="other@v1"), 9)], NOW)
    found = {("a", TARGET): 7, ("a", "other@v1"): 9}
    assert applied.commit_seqs(["a", "c"]) == AppliedBatches(connection).commit_seqs(["a", "c"]) == found


def test_lines_of_a_failed_transaction_are_gone(connection: duckdb.DuckDBPyConnection) -> None:
    applied = AppliedBatches(connection)
    connection.execute("BEGIN TRANSACTION")
    applied.append([(line("a", 1), 7)], NOW)
    with pytest.raises(duckdb.ConstraintException):
        applied.append([(line("b", 1), None)], NOW)  # type: ignore[list-item]
    connection.execute("ROLLBACK")
    assert applied.commit_seqs(["a", "b"]) == {}
    applied.append([(line("c", 1), 8)], NOW)
    assert connection.execute("SELECT batch_id, commit_seq FROM applied").fetchall() == [("c", 8)]


def test_the_hashes_of_many_lines_are_sorted_now_and_then(
    connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "_RECENT", 10)
    applied = AppliedBatches(connection)
    for number in range(40):
        applied.append([(line(f"batch-{number}", 1), number)], NOW)
    everything = {(f"batch-{number}", TARGET): number for number in range(40)}
    assert applied.commit_seqs(f"batch-{number}" for number in range(80)) == everything
    connection.execute("DELETE FROM applied")
    assert applied.commit_seqs(["batch-1"]) == {}
