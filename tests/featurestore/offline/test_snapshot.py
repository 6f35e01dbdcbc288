"""Snapshots: the rows of the log up to a commit_seq, whole, whatever pages they come in."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

import featurestore as fs
from featurestore.database.client import Database
from featurestore.errors import DefinitionError, QueryError
from featurestore.offline import snapshot
from featurestore.offline.snapshot import LogSlice, fetch
from featurestore.testing.memory import MemoryStore

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)

USER = fs.Entity("user", key="user_id")
EVENTS = fs.KafkaSource("events", timestamp="at", schema={"user_id": int, "n": int})
VIEW = fs.FeatureView("view", USER, EVENTS, [fs.Feature("n", int), fs.Feature("twice", int, "2 * n")])
OTHER = fs.FeatureView("other", USER, EVENTS, [fs.Feature("half", int, "n // 2")], where="n % 2 = 0")
PROJECT = fs.Project((VIEW, OTHER))


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    """Batches of 1, 10, 100 and 10 rows; the n-th row of all happened n seconds after noon."""
    store = MemoryStore(PROJECT)
    n = 0
    for rows in (1, 10, 100, 10):
        records = [{"user_id": one % 7, "at": NOON + one * SECOND, "n": one} for one in range(n, n + rows)]
        store.send(EVENTS, *records, created_at=NOON + (n + rows) * SECOND)
        n += rows
    yield store
    store.close()


def silent(what: str, done: int, of: int) -> None:
    """Progress nobody looks at."""


def numbers(database: Database, commit_seq: int | None = None, **bounds: Any) -> list[int]:
    found = fetch(database, [LogSlice(target="view@v1", columns=["n"], **bounds)], commit_seq, progress=silent)
    return sorted(found.logs["view@v1"]["n"].to_pylist())


@pytest.mark.parametrize("page_rows", [1, 7, 64, 10**6])
def test_all_rows_come_once_whatever_the_pages(
    store: MemoryStore, page_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "_PAGE_BYTES", page_rows * (snapshot._HEAD_BYTES + snapshot._VALUE_BYTES))
    assert numbers(store.database) == list(range(121))


def test_it_is_pinned(store: MemoryStore) -> None:
    slices = [LogSlice(target="view@v1", columns=["twice"]), LogSlice(target="other@v1", columns=["half"])]
    before = fetch(store.database, slices, progress=silent)
    store.send(EVENTS, {"user_id": 1, "at": NOON, "n": 1000})
    assert fetch(store.database, slices, progress=silent).logs["view@v1"].num_rows == 122
    again = fetch(store.database, slices, before.commit_seq, progress=silent)
    assert again.commit_seq == before.commit_seq
    for target, rows in before.logs.items():
        by = [(name, "ascending") for name in rows.column_names]
        assert again.logs[target].sort_by(by).equals(rows.sort_by(by))
    assert before.logs["other@v1"].num_rows == 61
    assert before.logs["other@v1"].column_names == [
        "entity_id", "event_timestamp", "created_at", "sequence", "tie", "half",
    ]  # fmt: skip


def test_bounds_leave_out_what_does_not_matter(store: MemoryStore) -> None:
    def at(n: int) -> datetime:
        return NOON + n * SECOND

    assert numbers(store.database, after=at(5), until=at(9)) == [6, 7, 8, 9]
    assert numbers(store.database, created_until=at(11)) == list(range(11))
    assert numbers(store.database, entity_ids=["3"], until=at(30)) == [3, 10, 17, 24]
    assert numbers(store.database, entity_ids=[]) == []
    assert numbers(store.database, commit_seq=0) == []


def test_many_entities_are_not_asked_for_one_by_one(store: MemoryStore) -> None:
    assert numbers(store.database, entity_ids=[str(n) for n in range(snapshot.FEW_ENTITIES + 1)]) == list(range(121))


def test_an_empty_log_has_its_columns() -> None:
    empty = MemoryStore(PROJECT)
    found = fetch(empty.database, [LogSlice(target="view@v1", columns=["n"])], progress=silent)
    assert found.commit_seq == 0
    assert found.logs["view@v1"].schema.field("n").type == pa.int64()


def test_progress_counts_rows(store: MemoryStore) -> None:
    told: list[tuple[str, int, int]] = []
    fetch(
        store.database,
        [LogSlice(target="view@v1", columns=["n"])],
        progress=lambda what, done, of: told.append((what, done, of)),
    )
    assert told[-1] == ("read view@v1", 121, 121)


def test_what_is_not_there_is_an_error(store: MemoryStore) -> None:
    with pytest.raises(QueryError, match="gone_v3"):
        fetch(store.database, [LogSlice(target="gone@v3", columns=["n"])], progress=silent)
    with pytest.raises(QueryError, match="gone"):
        fetch(store.database, [LogSlice(target="view@v1", columns=["gone"])], progress=silent)
    with pytest.raises(DefinitionError):
        fetch(store.database, [LogSlice(target='x" --@v1', columns=["n"])], progress=silent)
