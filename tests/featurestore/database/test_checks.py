"""A job that is not what its target wants is refused, and the reason names what is wrong."""

from dataclasses import replace
from datetime import UTC

import pyarrow as pa
import pytest

from featurestore.database.checks import checked
from featurestore.database.jobs import AppendJob
from featurestore.database.tables import target_of
from featurestore.errors import JobRefusedError
from tests.featurestore.database.examples import NOON, SCHEMA, held, job, line, quarantine, row, table

TARGET = target_of(SCHEMA.tables[0])
JOB = job(("a", 2))


def with_column(name: str, values: pa.Array) -> AppendJob:
    rows = JOB.rows
    return replace(JOB, rows=rows.set_column(rows.column_names.index(name), name, values))


def test_columns_go_by_name() -> None:
    shuffled = replace(JOB, rows=JOB.rows.select(list(reversed(JOB.rows.column_names))))
    assert checked(shuffled, TARGET).rows.equals(checked(JOB, TARGET).rows)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("steps", pa.array([1, 2], pa.int8())),
        ("steps", pa.array([1, 2], pa.uint64())),
        ("amount", pa.array([0.5, None], pa.float32())),
        ("last_action", pa.array(["a", "b"], pa.large_string())),
        ("last_action", pa.array(["a", "b"]).dictionary_encode()),
        ("bought", pa.nulls(2)),
        ("event_timestamp", pa.array([NOON, NOON], pa.timestamp("ms"))),
        ("event_timestamp", pa.array([NOON, NOON], pa.timestamp("us", tz="Europe/Berlin"))),
    ],
)
def test_a_narrower_or_encoded_type_is_taken(name: str, values: pa.Array) -> None:
    taken = checked(with_column(name, values), TARGET).rows[name]
    assert taken.type == checked(JOB, TARGET).rows[name].type
    if name == "event_timestamp":
        assert taken[0].as_py().replace(tzinfo=UTC) == NOON


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (replace(JOB, rows=JOB.rows.drop_columns(["event_timestamp"])), "column 'event_timestamp' is missing"),
        (replace(JOB, rows=JOB.rows.drop_columns(["spend"])), "column 'spend' is missing"),
        (replace(JOB, rows=JOB.rows.drop_columns(["line"])), "column 'line' is missing"),
        (
            replace(JOB, rows=JOB.rows.append_column("mood", pa.array([1, 2]))),
            "there is no column 'mood'; it has entity_id",
        ),
        (replace(JOB, rows=JOB.rows.append_column("steps", pa.array([1, 2]))), "column 'steps' is there twice"),
        (with_column("steps", pa.array(["1", "2"])), "column 'steps' is string, the table has BIGINT"),
        (with_column("steps", pa.array([1.0, 2.0])), "column 'steps' is double, the table has BIGINT"),
        (with_column("amount", pa.array([1, 2])), "column 'amount' is int64, the table has DOUBLE"),
        (with_column("bought", pa.array([0, 1])), "column 'bought' is int64, the table has BOOLEAN"),
        (
            with_column("steps", pa.array([1, 2**63], pa.uint64())),
            "column 'steps' is uint64 with values that BIGINT does not hold",
        ),
        (
            with_column("event_timestamp", pa.array([1, 2], pa.timestamp("ns"))),
            "with values that TIMESTAMP does not hold",
        ),
        (with_column("event_timestamp", pa.nulls(2)), "column 'event_timestamp' has 2 NULLs"),
        (with_column("entity_id", pa.array(["1", None])), "column 'entity_id' has 1 NULLs"),
        (with_column("line", pa.array([0, None])), "column 'line' has 1 NULLs"),
        (with_column("line", pa.array([0, 1])), "'line' does not stay within the 1 ledger lines"),
        (with_column("line", pa.array([-1, 0])), "'line' does not stay within the 1 ledger lines"),
        (replace(JOB, lines=(line("a", 2, target="other@v1"),)), "names 'other@v1' in a job for 'activity@v1'"),
        (replace(JOB, lines=(line("a", 2, digest="x"),)), "give activity version=2, or take the change back"),
        (replace(JOB, lines=(replace(line("a", 2), rows_in=3),)), r"rows in \(3\) is not logged \(2\)"),
        (replace(JOB, lines=(replace(line("a", 2), filtered=-1, rows_in=1),)), r"rows in \(1\) is not"),
        (replace(JOB, lines=(line("a", 3),)), "says 3 logged and 0 quarantined, the job brings 2 and 0"),
        (replace(JOB, lines=(line("a", 2, quarantined=1),)), "says 2 logged and 1 quarantined, the job brings 2 and 0"),
        (
            replace(job(("a", 1), ("b", 1)), rows=table(row("a", 0), row("a", 1))),
            "batch a: the ledger line says 1 logged and 0 quarantined, the job brings 2 and 0",
        ),
        (
            replace(JOB, quarantined=quarantine(held(reason=None)), lines=(line("a", 2, quarantined=1),)),
            "quarantined rows: column 'reason' has 1 NULLs",
        ),
    ],
)
def test_what_is_wrong_is_named(refused: AppendJob, reason: str) -> None:
    with pytest.raises(JobRefusedError, match=reason):
        checked(refused, TARGET)


def test_a_target_without_a_digest_takes_any_code() -> None:
    other = replace(JOB, lines=(line("a", 2, digest="whatever"),))
    assert checked(other, replace(TARGET, digest="")).rows.num_rows == 2
