"""Jobs go into the database once, whatever is sent again and however it is grouped."""

import random
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import duckdb
import pytest

from featurestore.database.connection import open_database
from featurestore.database.jobs import AppendJob, JobReply, SchemaJob
from featurestore.database.tables import view_table
from featurestore.database.writer import Writer
from tests.featurestore.database.examples import (
    ACTIVITY,
    NOON,
    SCHEMA,
    held,
    job,
    line,
    quarantine,
    row,
    table,
)

T = TypeVar("T")


@pytest.fixture
def connection() -> Generator[duckdb.DuckDBPyConnection]:
    with open_database() as opened:
        yield opened


@pytest.fixture
def writer(connection: duckdb.DuckDBPyConnection) -> Writer:
    made = Writer(connection)
    assert made.commit([SCHEMA]) == [JobReply("schema")]
    return made


def logged(connection: duckdb.DuckDBPyConnection) -> list[tuple[int, int]]:
    """(tie, sequence) of every row of the log: the tie names the batch."""
    return connection.execute("SELECT tie, sequence FROM log.activity_v1 ORDER BY ALL").fetchall()


def ledger(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, int]]:
    return connection.execute("SELECT batch_id, logged FROM applied ORDER BY ALL").fetchall()


def test_rows_and_ledger_line_go_in_together(connection: duckdb.DuckDBPyConnection, writer: Writer) -> None:
    [reply] = writer.commit([job(("a", 2), ("empty", 0))])
    assert reply.skipped == (False, False)
    rows = connection.execute("FROM log.activity_v1 ORDER BY sequence").fetchall()
    at = NOON.replace(tzinfo=None)
    assert rows[0] == ("0", at, at, 0, row("a", 0)["tie"], reply.commit_seqs[0], "click", 0.0, 0, False, 0.0)
    assert len(rows) == 2
    assert ledger(connection) == [("a", 2), ("empty", 0)]


def test_a_resend_is_skipped_and_told_the_first_commit_seq(
    connection: duckdb.DuckDBPyConnection, writer: Writer
) -> None:
    [first] = writer.commit([job(("a", 3), ("b", 2))])
    [again] = writer.commit([job(("b", 2), ("c", 1), ("a", 3))])
    assert again.skipped == (True, False, True)
    assert (again.commit_seqs[2], again.commit_seqs[0]) == first.commit_seqs
    assert ledger(connection) == [("a", 3), ("b", 2), ("c", 1)]
    assert len(logged(connection)) == 6


def test_the_same_job_twice_in_a_group_is_done_once(connection: duckdb.DuckDBPyConnection, writer: Writer) -> None:
    first, again, regrouped = writer.commit([job(("a", 3)), job(("a", 3)), job(("b", 1), ("a", 3))])
    assert (first.skipped, again.skipped, regrouped.skipped) == ((False,), (True,), (False, True))
    assert first.commit_seqs == again.commit_seqs == regrouped.commit_seqs[1:]
    assert len(logged(connection)) == 4


def test_quarantined_rows_are_kept_with_their_batch(connection: duckdb.DuckDBPyConnection, writer: Writer) -> None:
    mixed = AppendJob(
        "job",
        ACTIVITY.target,
        (line("a", 1, filtered=4), line("b", 1, quarantined=2)),
        table(row("a", 0), row("b", 0, 1)),
        quarantine(held(1, sequence=7), held(1, sequence=8, reason="x", row=None)),
    )
    for _ in range(2):
        assert not writer.commit([mixed])[0].error
    kept = connection.execute("FROM quarantined_rows ORDER BY sequence").fetchall()
    assert kept == [("b", "activity@v1", 7, None, "amount >= 0", "{}"), ("b", "activity@v1", 8, None, "x", None)]
    counts = connection.execute("SELECT rows_in, logged, filtered, quarantined FROM applied ORDER BY batch_id")
    assert counts.fetchall() == [(5, 1, 4, 0), (3, 1, 0, 2)]


def test_commit_seq_rises_whatever_the_clock_does(connection: duckdb.DuckDBPyConnection) -> None:
    clock = iter(NOON + timedelta(seconds=seconds) for seconds in (0, 9, 9, -3600, -3600, -7200, -7200, 5, 5))
    writer = Writer(connection, now=lambda: next(clock))
    writer.commit([SCHEMA])
    seqs = [writer.commit([job((batch, 1))])[0].commit_seqs[0] for batch in "abcd"]
    nine = int((NOON + timedelta(seconds=9)).timestamp() * 1e6)
    assert seqs == [nine, nine + 1, nine + 2, nine + 3]


def test_commit_seq_goes_on_after_a_restart(connection: duckdb.DuckDBPyConnection, writer: Writer) -> None:
    [before] = writer.commit([job(("a", 1))])
    past = Writer(connection, now=lambda: NOON - timedelta(days=900))
    [after] = past.commit([job(("b", 1))])
    assert after.commit_seqs[0] == before.commit_seqs[0] + 1


def test_a_refused_job_does_not_keep_others_from_being_done(
    connection: duckdb.DuckDBPyConnection, writer: Writer
) -> None:
    other_code = replace(job(("x", 1)), lines=(line("x", 1, digest="other"),))
    done, refused, unknown, also = writer.commit(
        [job(("a", 1)), other_code, replace(job(("y", 1)), target="gone@v1"), job(("b", 1))]
    )
    assert (done.error, also.error) == ("", "")
    assert "give activity version=2, or take the change back" in refused.error
    assert "'gone@v1' is not registered" in unknown.error
    assert ledger(connection) == [("a", 1), ("b", 1)]


def test_a_job_that_fails_in_the_database_fails_alone(
    connection: duckdb.DuckDBPyConnection, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    connection.execute("CREATE UNIQUE INDEX one_each ON hot.activity_v1 (last_action, tie, sequence)")
    twice = job(("bad", 2), rows=table(*[row("bad", 0, last_action="said in confidence")] * 2))
    before, poison, behind = writer.commit([job(("a", 2)), twice, job(("b", 2))])
    assert (before.error, behind.error) == ("", "")
    assert poison.error.startswith("failed: Constraint Error")
    assert ledger(connection) == [("a", 2), ("b", 2)]
    assert len(logged(connection)) == 4
    assert "said in confidence" in poison.error
    [told] = [record for record in caplog.records if record.message == "append failed: ConstraintException"]
    assert {"job_id": "job", "target": "activity@v1"}.items() <= vars(told).items()
    assert "said in confidence" not in caplog.text  # who sends rows may see them, who reads logs may not


def test_a_view_is_registered_once(connection: duckdb.DuckDBPyConnection, writer: Writer) -> None:
    assert writer.commit([SCHEMA, job(("a", 1)), SCHEMA])[2] == JobReply("schema")
    other = replace(SCHEMA.tables[0], digest="other")
    [reply] = writer.commit([SchemaJob("again", (other,))])
    assert "give activity version=2" in reply.error
    assert len(logged(connection)) == 1


def test_a_second_version_is_a_table_of_its_own_and_not_active(
    connection: duckdb.DuckDBPyConnection, writer: Writer
) -> None:
    writer.commit([job(("a", 1))])
    second = view_table(replace(ACTIVITY, version=2, where="steps > 0"))
    assert writer.commit([SchemaJob("v2", (second,))]) == [JobReply("v2")]
    versions = connection.execute("SELECT target, active FROM view_versions ORDER BY 1").fetchall()
    assert versions == [("activity@v1", True), ("activity@v2", False)]
    assert connection.execute("SELECT DISTINCT view_version FROM features").fetchall() == [(1,)]


def test_versions_registered_together_start_with_the_first(connection: duckdb.DuckDBPyConnection) -> None:
    tables = tuple(view_table(replace(ACTIVITY, version=number)) for number in (3, 2))
    assert not Writer(connection).commit([SchemaJob("both", tables)])[0].error
    assert connection.execute("SELECT target FROM view_versions WHERE active").fetchall() == [("activity@v2",)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "other"}, "feature 'last_action' of view 'other' belongs to view 'activity'"),
        ({"version": 2, "features": "typed"}, "feature 'steps' is BIGINT in activity@v1 and DOUBLE in activity@v2"),
    ],
)
def test_a_feature_keeps_its_view_and_type(writer: Writer, change: dict[str, object], reason: str) -> None:
    if change.get("features"):
        steps = ACTIVITY.features[2]
        change = {**change, "features": [replace(steps, dtype=float)]}  # type: ignore[type-var]
    [reply] = writer.commit([SchemaJob("taken", (view_table(replace(ACTIVITY, **change)),))])  # type: ignore[arg-type]
    assert reason in reply.error


def test_a_refused_schema_job_makes_none_of_its_tables(connection: duckdb.DuckDBPyConnection, writer: Writer) -> None:
    fine, taken = replace(ACTIVITY, version=2), replace(ACTIVITY, name="other")
    assert writer.commit([SchemaJob("both", (view_table(fine), view_table(taken)))])[0].error
    assert connection.execute("SELECT count(*) FROM view_versions").fetchall() == [(1,)]
    [reply] = writer.commit([replace(job(("a", 0)), target="activity@v2", lines=())])
    assert "is not registered" in reply.error


def test_which_features_are_online_may_change_within_a_version(
    connection: duckdb.DuckDBPyConnection, writer: Writer
) -> None:
    offline = [replace(one, online=False) for one in ACTIVITY.features]
    assert not writer.commit([SchemaJob("off", (view_table(replace(ACTIVITY, features=offline)),))])[0].error
    [(features,)] = connection.execute("SELECT features FROM view_versions").fetchall()
    assert '"online":true' not in features


BATCHES = {name: size for size, name in enumerate("abcdef")}
History = list[list[list[str]]]  # of sends: each is a group of jobs, each job a choice of batches


@pytest.mark.parametrize("seed", range(30))
def test_regrouped_resends_change_nothing(connection: duckdb.DuckDBPyConnection, writer: Writer, seed: int) -> None:
    history = made_up(random.Random(seed))
    for jobs in sent(history):
        assert not any(reply.error for reply in writer.commit(jobs))
    once = {batch: BATCHES[batch] for group in history for one in group for batch in one}
    assert dict(ledger(connection)) == once
    assert len(logged(connection)) == len(set(logged(connection))) == sum(once.values())


def made_up(dice: random.Random) -> History:
    def some(make: Callable[[], T], most: int) -> list[T]:
        return [make() for _ in range(dice.randint(1, most))]

    return some(lambda: some(lambda: some(lambda: dice.choice(sorted(BATCHES)), 4), 4), 6)


def test_job_ids_in_place_of_pairs_would_log_twice(connection: duckdb.DuckDBPyConnection, writer: Writer) -> None:
    """The negative control of the test above: a ledger that knows jobs, not batches."""
    for jobs in sent([[["a", "b"]], [["b", "c"]], [["a", "b"]]]):
        by_job = [
            replace(one, lines=tuple(replace(each, batch_id=f"{one.job_id}/{each.batch_id}") for each in one.lines))
            for one in jobs
        ]
        assert not any(reply.error for reply in writer.commit(by_job))
    assert len(logged(connection)) > len(set(logged(connection)))


def sent(history: History) -> Iterator[list[AppendJob]]:
    """Each choice of batches is a job of its own name, as a regrouped backfill makes them."""
    for group in history:
        yield [job(*((batch, BATCHES[batch]) for batch in one), job_id="+".join(one)) for one in group]


def test_times_of_the_ledger_are_utc(connection: duckdb.DuckDBPyConnection, writer: Writer) -> None:
    writer.commit([job(("a", 1))])
    [(applied_at, seq)] = connection.execute("SELECT applied_at, commit_seq FROM applied").fetchall()
    assert abs(applied_at - datetime(1970, 1, 1)) - timedelta(microseconds=seq) < timedelta(seconds=5)  # noqa: DTZ001


FULL_DISK = """
import resource, signal, sys
from featurestore.database.connection import open_database
from featurestore.database.writer import Writer
from featurestore.errors import TransientError
from tests.featurestore.database.examples import SCHEMA, job

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
connection = open_database(sys.argv[1])
writer = Writer(connection)
writer.commit([SCHEMA, job(("before", 10))])
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
for _ in range(3):
    try:
        writer.commit([job(("large", 20_000))])
        sys.exit("it was written")
    except TransientError as error:
        assert "the database cannot write" in str(error), error
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
[reply] = writer.commit([job(("large", 20_000))])
assert not reply.error, reply
"""


def test_a_disk_that_cannot_be_written_is_nobodys_fault(tmp_path: Path) -> None:
    """The process may write no file beyond a size, as on a full disk; the same job is done when there is room again."""
    file = tmp_path / "small.duckdb"
    subprocess.run([sys.executable, "-c", FULL_DISK, str(file)], check=True, timeout=100, cwd=Path(__file__).parents[3])
    with open_database(file) as connection:
        assert ledger(connection) == [("before", 10), ("large", 20_000)]
        assert len(logged(connection)) == 20_010
