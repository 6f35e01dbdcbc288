"""What every Database does: over the queues of the service, over a file, in memory, over Dagster's resource."""

import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from dagster_duckdb import DuckDBResource

from featurestore.database.client import Database
from featurestore.database.connection import MEMORY
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.database.jobs import SchemaJob
from featurestore.database.tables import MODEL_METADATA, view_table
from featurestore.errors import JobRefusedError, QueryError
from tests.featurestore.database.examples import (
    ACTIVITY,
    LARGEST,
    NOON,
    SCHEMA,
    held,
    job,
    line,
    quarantine,
    row,
    table,
)
from tests.featurestore.database.serving import client, on_a_thread, settings_for


@pytest.fixture(params=["memory", "file", "dagster", pytest.param("queue", marks=pytest.mark.services)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Database]:
    if request.param == "queue":
        settings = settings_for(tmp_path, request.getfixturevalue("redis_url"))
        with on_a_thread(settings), client(settings) as queued:
            yield queued
        return
    with ExitStack() as opened:
        resource = DuckDBResource(database=str(tmp_path / "own.duckdb"))
        over = {"memory": lambda: MEMORY, "file": lambda: tmp_path / "own.duckdb"}
        over["dagster"] = lambda: opened.enter_context(resource.get_connection())
        embedded = EmbeddedDatabase(over[request.param]())
        opened.callback(embedded.close)
        embedded.ensure(SCHEMA)
        yield embedded


@dataclass(frozen=True)
class Counted:
    rows: int


@dataclass(frozen=True)
class Seen:
    entity_id: str
    event_timestamp: datetime
    last_action: str | None
    steps: int


def rows_in(database: Database, relation: str = "log.activity_v1") -> int:
    [counted] = database.query(f"SELECT count(*) AS rows FROM {relation}", into=Counted)
    return counted.rows


def test_what_is_appended_is_read(database: Database) -> None:
    reply = database.append(job(("a", 3), ("b", 0)))
    assert reply.skipped == (False, False)
    assert reply.commit_seqs[0] < reply.commit_seqs[1]
    found = database.query(
        "SELECT entity_id, event_timestamp, last_action, steps FROM log.activity_v1 WHERE event_timestamp >= $since "
        "ORDER BY sequence",
        {"since": NOON + timedelta(seconds=1)},
        into=Seen,
    )
    assert found == [Seen(str(n), NOON + timedelta(seconds=n), "click", n) for n in (1, 2)]
    assert found[0].event_timestamp.tzinfo is UTC


def test_what_is_sent_again_changes_nothing(database: Database) -> None:
    first = database.append(job(("a", 3), ("b", 2)))
    again = database.append(job(("b", 2), ("c", 1), job_id="another"))
    assert (again.skipped, again.commit_seqs[0]) == ((True, False), first.commit_seqs[1])
    assert again.commit_seqs[1] > max(first.commit_seqs)
    assert rows_in(database) == 6
    assert rows_in(database, "applied") == 3


def test_quarantined_rows_are_kept(database: Database) -> None:
    database.append(replace(job(), lines=(line("a", 0, quarantined=1),), quarantined=quarantine(held(sequence=7))))
    assert database.query_arrow('SELECT batch_id, sequence, "row" FROM quarantined_rows').to_pylist() == [
        {"batch_id": "a", "sequence": 7, "row": "{}"}
    ]


def test_a_wrong_job_is_refused_with_its_reason(database: Database) -> None:
    wrong = job(("a", 1))
    for refused, reason in (
        (replace(wrong, rows=wrong.rows.drop_columns(["event_timestamp"])), "column 'event_timestamp' is missing"),
        (replace(wrong, lines=(line("a", 1, digest="other"),)), "give activity version=2, or take the change back"),
        (replace(wrong, target="gone@v1"), "target 'gone@v1' is not registered"),
        (replace(wrong, lines=(line("a", 2),)), "says 2 logged and 0 quarantined, the job brings 1 and 0"),
    ):
        with pytest.raises(JobRefusedError, match=reason):
            database.append(refused)
    assert rows_in(database) == rows_in(database, "applied") == 0


def test_a_version_is_registered_once_for_ever(database: Database) -> None:
    database.ensure(SCHEMA)
    changed = view_table(replace(ACTIVITY, where="steps > 0"))
    with pytest.raises(JobRefusedError, match="give activity version=2, or take the change back"):
        database.ensure(SchemaJob("changed", (changed,)))
    database.ensure(SchemaJob("second", (view_table(replace(ACTIVITY, version=2, where="steps > 0")),)))
    assert rows_in(database, "log.activity_v2") == 0


def test_only_reading_is_reading(database: Database) -> None:
    database.append(job(("a", 1)))
    for sql in (
        "DELETE FROM applied",
        "COMMIT; DELETE FROM applied; SELECT 1",
        "WITH x AS (DELETE FROM applied RETURNING *) SELECT * FROM x",
        "EXPLAIN ANALYZE DELETE FROM applied",
    ):
        with pytest.raises(QueryError):
            database.query_arrow(sql)
    assert rows_in(database, "applied") == 1


def test_a_query_that_fails_says_why(database: Database) -> None:
    for sql, reason in (
        ("SELECT nothing FROM applied", '"nothing" not found'),
        ("SELECT 1 +", "syntax error"),
        ("SELECT 1 AS other", "the query returns other; Counted has rows"),
    ):
        with pytest.raises(QueryError, match=reason):
            database.query(sql, into=Counted)


def test_parameters_are_values_never_text(database: Database) -> None:
    database.append(job(("a", 3)))
    evil = "x' OR '1' = '1"
    sql = "SELECT count(*) AS rows FROM log.activity_v1 WHERE entity_id IN $ids"
    assert database.query(sql, {"ids": [evil]}, into=Counted) == [Counted(0)]
    assert database.query(sql, {"ids": ["1", "2", evil]}, into=Counted) == [Counted(2)]


def test_a_declared_query_is_asked_by_its_name(database: Database) -> None:
    database.append(job(("a", 12)))
    assert database.query_arrow(LARGEST, {"entity_id": "1"}).to_pylist() == [{"steps": 11}]
    with pytest.raises(QueryError, match="entity_id"):
        database.query_arrow(LARGEST)


def test_arrow_results_are_as_in_the_log(database: Database) -> None:
    database.append(job(("a", 2)))
    found = database.query_arrow("SELECT * EXCLUDE (commit_seq) FROM log.activity_v1 ORDER BY sequence")
    assert found.to_pylist() == job(("a", 2)).rows.drop_columns(["line"]).to_pylist()
    assert found.schema.field("event_timestamp").type == pa.timestamp("us")


def test_many_threads_may_use_it(database: Database) -> None:
    def use(number: int) -> int:
        database.append(job((f"batch-{number % 20}", 5), job_id=f"job-{number}"))
        return database.query("SELECT $n AS rows", {"n": number}, into=Counted)[0].rows

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(use, range(60))) == list(range(60))
    assert rows_in(database) == 100
    assert rows_in(database, "applied") == 20


BOTH = """
SELECT (SELECT count(*) FROM log.activity_v1) AS rows, (SELECT coalesce(sum(logged), 0) FROM applied) AS said
"""


def test_a_reader_never_sees_half_a_job(database: Database) -> None:
    over = threading.Event()
    torn: list[tuple[int, int]] = []

    def look() -> None:
        while not over.is_set():
            [seen] = database.query_arrow(BOTH).to_pylist()
            if seen["rows"] != seen["said"]:
                torn.append((seen["rows"], seen["said"]))

    with ThreadPoolExecutor(2) as pool:
        looking = [pool.submit(look) for _ in range(2)]
        try:
            for number in range(15):
                database.append(job((f"a-{number}", 500), (f"b-{number}", 500)))
        finally:
            over.set()
        for one in looking:
            one.result()
    assert torn == []


def test_what_is_said_of_models_is_a_log_and_a_current_state(database: Database) -> None:
    def say(number: int, version: str, status: str) -> None:
        said = {
            "model_id": ["m"],
            "artifact_type": ["model"],
            "version": [version],
            "status": [status],
            "expected_features": ['[{"index": 0}]'],
            "size_bytes": [7],
            "recorded_at": pa.array([NOON + timedelta(seconds=number)], pa.timestamp("us")),
            "line": [0],
        }
        names = "trained_date azure_location view_versions sha256 format etag actor receipt".split()  # noqa: SIM905
        rows = pa.table({**said, **{name: pa.nulls(1, pa.string()) for name in names}})
        lines = (line(f"m/metadata.json#{number}", 1, target=MODEL_METADATA, digest=""),)
        database.append(replace(job(), target=MODEL_METADATA, lines=lines, rows=rows))

    for number, (version, status) in enumerate(
        [("1", "production"), ("2", "staging"), ("2", "production"), ("3", "staging"), ("1", "production")]
    ):
        say(number, version, status)
        say(number, version, status)
    assert rows_in(database, "model_metadata_log") == 5
    current = database.query_arrow("SELECT version, status, promoted FROM model_metadata ORDER BY version").to_pylist()
    assert current == [
        {"version": "1", "status": "production", "promoted": True},  # promoted again: a rollback
        {"version": "2", "status": "production", "promoted": False},
        {"version": "3", "status": "staging", "promoted": False},
    ]


def test_rows_are_checked_one_by_one(database: Database) -> None:
    rows = table(row("a", 0), row("a", 1, entity_id=None))
    with pytest.raises(JobRefusedError, match="column 'entity_id' has 1 NULLs"):
        database.append(job(("a", 2), rows=rows))
