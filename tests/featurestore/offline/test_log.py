"""The copy of the ledger follows the database, over restarts and rebuilds."""

from collections.abc import Generator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from featurestore.database.embedded import EmbeddedDatabase
from featurestore.database.jobs import SchemaJob
from featurestore.offline import log
from featurestore.offline.log import Ledger, TargetCounts, accounting, last_line, registered
from tests.featurestore.database.examples import ACTIVITY, SCHEMA, job, line, table


@pytest.fixture
def database() -> Generator[EmbeddedDatabase]:
    opened = EmbeddedDatabase()
    opened.ensure(SCHEMA)
    yield opened
    opened.close()


def test_only_what_is_new_is_read(database: EmbeddedDatabase) -> None:
    ledger = Ledger()
    ledger.refresh(database)
    assert ledger.rows == {}
    assert ledger.epoch
    first = database.append(job(("a", 3), ("b", 0)))
    ledger.refresh(database)
    before = ledger.rows["a", "activity@v1"]
    assert (before.commit_seq, before.rows_in, before.logged) == (first.commit_seqs[0], 3, 3)
    assert before.applied_at.tzinfo is UTC
    database.append(job(("c", 1), ("a", 3)))
    ledger.refresh(database)
    ledger.refresh(database)
    assert ledger.rows["a", "activity@v1"] is before
    assert [one.batch_id for one in ledger.lines("activity@v1")] == ["a", "b", "c"]
    assert ledger.lines("other@v1") == []


def test_a_long_ledger_is_read_in_pages(database: EmbeddedDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_PAGE_ROWS", 7)
    database.append(job(*((f"batch-{number:02}", 0) for number in range(28))))
    ledger = Ledger()
    ledger.refresh(database)
    assert [one.batch_id for one in ledger.lines("activity@v1")] == [f"batch-{number:02}" for number in range(28)]


def test_another_database_is_another_ledger(tmp_path: Path, database: EmbeddedDatabase) -> None:
    ledger = Ledger()
    database.append(job(("a", 1), ("b", 1)))
    ledger.refresh(database)
    rebuilt = EmbeddedDatabase(tmp_path / "rebuilt.duckdb")
    rebuilt.ensure(SCHEMA)
    ledger.refresh(rebuilt)
    assert ledger.rows == {}
    rebuilt.append(job(("b", 1)))
    rebuilt.append(job(("c", 1)))
    ledger.refresh(database)
    assert [one.batch_id for one in ledger.lines("activity@v1")] == ["a", "b"]
    ledger.refresh(rebuilt)
    assert [one.batch_id for one in ledger.lines("activity@v1")] == ["b", "c"]
    rebuilt.close()


def test_a_restored_database_is_another_one_though_its_lines_are_old(tmp_path: Path) -> None:
    file = tmp_path / "own.duckdb"
    database = EmbeddedDatabase(file)
    database.ensure(SCHEMA)
    for batch in "abc":
        database.append(job((batch, 1)))
    ledger = Ledger()
    ledger.refresh(database)
    database.close()
    with duckdb.connect(str(file)) as connection:  # what a restore of an older backup leaves
        connection.execute("DELETE FROM applied WHERE batch_id = 'c'")
        connection.execute("UPDATE store_info SET epoch = 'restored'")
    database = EmbeddedDatabase(file)
    ledger.refresh(database)
    assert (ledger.epoch, [one.batch_id for one in ledger.lines("activity@v1")]) == ("restored", ["a", "b"])
    database.close()


def test_after_an_erasure_it_is_the_same_database_with_other_lines(tmp_path: Path) -> None:
    file = tmp_path / "own.duckdb"
    with closing(EmbeddedDatabase(file)) as database:
        database.ensure(SCHEMA)
        database.append(job(("a", 3)))
        ledger = Ledger()
        ledger.refresh(database)
        before = ledger.epoch
    with duckdb.connect(str(file)) as connection:
        connection.execute("UPDATE applied SET logged = 2, erased = 1")
        connection.execute("INSERT INTO erasures VALUES (now(), 'user', 1)")
    with closing(EmbeddedDatabase(file)) as database:
        ledger.refresh(database)
        assert ledger.rows["a", "activity@v1"].erased == 1
        assert ledger.epoch == before == last_line(database, "activity@v1")[0]


def test_targets_are_registered_once(database: EmbeddedDatabase) -> None:
    first = registered(database)
    assert list(first) == ["activity@v1"]
    assert abs(first["activity@v1"] - datetime.now(UTC)) < timedelta(minutes=1)
    database.ensure(SCHEMA)
    assert registered(database) == first


def test_the_sums_add_up(database: EmbeddedDatabase) -> None:
    assert accounting(database) == [TargetCounts("activity@v1", 0, 0, 0, 0, 0, 0, None)]
    database.append(job(("a", 3), ("b", 2)))
    filtered = job(("c", 0))
    database.append(type(filtered)("c", ACTIVITY.target, (line("c", 0, filtered=7),), table(), filtered.quarantined))
    [sums] = accounting(database)
    assert (sums.batches, sums.rows_in, sums.logged, sums.filtered, sums.quarantined) == (3, 12, 5, 7, 0)
    assert sums.newest_applied_at == max(registered_at(database))


def registered_at(database: EmbeddedDatabase) -> list[datetime]:
    ledger = Ledger()
    ledger.refresh(database)
    return [one.applied_at for one in ledger.lines("activity@v1")]


def test_an_empty_schema_has_no_sums() -> None:
    opened = EmbeddedDatabase()
    opened.ensure(SchemaJob("none", ()))
    assert accounting(opened) == []
    opened.close()
