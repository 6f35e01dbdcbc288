"""P5: the log is append-only; doing any of it again, in any grouping, changes nothing."""

import random
from collections.abc import Generator, Sequence
from dataclasses import replace

import pyarrow as pa
import pytest

from featurestore.database.embedded import EmbeddedDatabase
from featurestore.database.jobs import AppendJob
from tests.featurestore.database.examples import SCHEMA, job, row

BATCHES = {f"batch-{number}": number % 7 for number in range(40)}
RELATIONS = ("log.activity_v1", "applied", "quarantined_rows")


@pytest.fixture
def database() -> Generator[EmbeddedDatabase]:
    opened = EmbeddedDatabase()
    opened.ensure(SCHEMA)
    yield opened
    opened.close()


def contents(database: EmbeddedDatabase) -> list[pa.Table]:
    return [database.query_arrow(f"FROM {relation} ORDER BY ALL") for relation in RELATIONS]


def jobs_of(batches: Sequence[str], size: int) -> list[AppendJob]:
    """The batches, `size` to a job."""
    groups = [batches[start : start + size] for start in range(0, len(batches), size)]
    return [job(*((batch, BATCHES[batch]) for batch in group), job_id="+".join(group)) for group in groups]


def test_what_is_logged_stays_as_it_is_while_more_comes(database: EmbeddedDatabase) -> None:
    seen = contents(database)
    for one in jobs_of(list(BATCHES), 3):
        database.append(one)
        now = contents(database)
        for before, after in zip(seen, now, strict=True):
            assert set(map(str, before.to_pylist())) <= set(map(str, after.to_pylist()))
        seen = now


@pytest.mark.parametrize("size", [1, 2, 5, 40])
def test_doing_it_again_changes_nothing(database: EmbeddedDatabase, size: int) -> None:
    for one in jobs_of(list(BATCHES), 4):
        database.append(one)
    before = contents(database)
    shuffled = random.Random(size).sample(list(BATCHES), len(BATCHES))
    for one in jobs_of(shuffled, size):
        assert all(database.append(one).skipped)
    assert contents(database) == before
    assert before[0].num_rows == sum(BATCHES.values())


def test_a_ledger_of_jobs_would_log_twice(database: EmbeddedDatabase) -> None:
    """The negative control: with the job's name in the pair, another grouping is another truth."""
    for size in (4, 5):
        for one in jobs_of(list(BATCHES), size):
            lines = tuple(replace(line, batch_id=f"{one.job_id}: {line.batch_id}") for line in one.lines)
            database.append(replace(one, lines=lines))
    assert contents(database)[0].num_rows == 2 * sum(BATCHES.values())


def test_other_rows_under_the_name_of_a_logged_batch_are_not_taken(database: EmbeddedDatabase) -> None:
    database.append(job(("a", 1)))
    before = contents(database)
    changed = pa.Table.from_pylist([row("a", 0, amount=99.0)], schema=job().rows.schema)
    assert database.append(job(("a", 1), rows=changed)).skipped == (True,)
    assert contents(database) == before
