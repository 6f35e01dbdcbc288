"""Runs ⇄ batches: what a run was given, and why it failed."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from featurestore.landing.pending import Cause
from featurestore_dagster.names import PLAIN, Keys
from featurestore_dagster.runs import CAUSE, FailedRun, batches_of, failed_runs, failure, with_batches

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_batches_of_a_run_stand_in_its_configuration() -> None:
    assert batches_of(with_batches(["a", "b"])) == {"a", "b"}
    assert batches_of(with_batches(["a", "b"], Keys("shop"))) == set()  # another project's
    for config in ({}, {"resources": {}}, {"resources": {"batches": None}}, {"resources": {"batches": {"config": {}}}}):
        assert batches_of(config) == set()


@pytest.mark.parametrize("namespace", ["", "shop", "team-b"])
def test_projects_have_lanes_of_their_own(namespace: str) -> None:
    own = Keys(namespace)
    assert own.lane_of(own.lane_tag("clicks.0")) == "clicks.0"
    assert [own.lane_of(other.lane_tag("clicks.0")) for other in (PLAIN, Keys("shop"), Keys("b")) if other != own] == [
        "" for other in ("", "shop", "b") if other != namespace
    ]


class Batches(dg.ConfigurableResource):
    batch_ids: list[str]


@dg.job(resource_defs={"batches": Batches(batch_ids=[])})
def idle() -> None: ...


def run(instance: dg.DagsterInstance, *steps: Callable[[], None], batches: list[str]) -> str:
    """A run that names batches and has these steps beside each other."""

    class Batches(dg.ConfigurableResource):
        batch_ids: list[str]

    ops = [
        dg.op(name=f"step_{number}", required_resource_keys={"batches"})(_op(step)) for number, step in enumerate(steps)
    ]

    @dg.job(resource_defs={"batches": Batches(batch_ids=[])})
    def work() -> None:
        for one in ops:
            one()

    result = work.execute_in_process(instance=instance, run_config=with_batches(batches), raise_on_error=False)
    return result.run_id


def _op(step: Callable[[], None]) -> Callable[[dg.OpExecutionContext], None]:
    def compute(context: dg.OpExecutionContext) -> None:
        step()

    return compute


def bad_rows() -> None:
    raise failure(ValueError("row 7 is bad"), Cause.BATCH)


def no_service() -> None:
    raise failure(ConnectionError("nobody there"), Cause.INFRASTRUCTURE)


def surprise() -> None:
    raise ZeroDivisionError("division by zero")


def no_memory() -> None:
    raise MemoryError


def fine() -> None: ...


@pytest.mark.parametrize(
    ("steps", "cause", "reason"),
    [
        ([bad_rows], Cause.BATCH, "row 7 is bad"),
        ([no_service], Cause.INFRASTRUCTURE, "nobody there"),
        ([surprise], Cause.BATCH, "ZeroDivisionError: division by zero"),
        ([no_memory], Cause.INFRASTRUCTURE, "MemoryError"),
        ([bad_rows, no_service], Cause.INFRASTRUCTURE, "nobody there"),
        ([fine, bad_rows], Cause.BATCH, "row 7 is bad"),
    ],
)
def test_a_failed_run_tells_its_cause(
    instance: dg.DagsterInstance, steps: list[Callable[[], None]], cause: Cause, reason: str
) -> None:
    run_id = run(instance, *steps, batches=["clicks/a"])
    [found] = failed_runs(instance, LONG_AGO, ())
    assert (found.run_id, found.failure.cause, found.failure.batch_ids) == (run_id, cause, {"clicks/a"})
    assert reason in found.failure.reason


def test_a_run_that_died_without_a_word_has_no_known_cause(instance: dg.DagsterInstance) -> None:
    died = instance.create_run_for_job(idle, run_config=with_batches(["a"]), status=dg.DagsterRunStatus.STARTED)
    instance.report_run_failed(died)
    [found] = failed_runs(instance, LONG_AGO, ())
    assert found.failure.cause is Cause.UNKNOWN


def test_a_cancelled_run_is_nobodys_fault(instance: dg.DagsterInstance) -> None:
    cancelled = instance.create_run_for_job(idle, run_config=with_batches(["a"]), status=dg.DagsterRunStatus.STARTED)
    instance.report_run_canceled(cancelled)
    [found] = failed_runs(instance, LONG_AGO, ())
    assert found.failure.cause is Cause.INFRASTRUCTURE


def test_each_failure_is_told_once(instance: dg.DagsterInstance) -> None:
    run(instance, fine, batches=["a"])
    run(instance, bad_rows, batches=[])  # a run by hand, of whole hours
    first = run(instance, bad_rows, batches=["a"])
    found: list[FailedRun] = failed_runs(instance, LONG_AGO, ())
    assert [one.run_id for one in found] == [first]
    until, seen = found[-1].updated_at, (first,)
    assert failed_runs(instance, until, seen) == []
    second = run(instance, bad_rows, batches=["b"])
    assert [one.run_id for one in failed_runs(instance, until, seen)] == [second]
    assert failed_runs(instance, until + timedelta(hours=1), ()) == []


def test_a_failure_says_whose_it_is() -> None:
    raised = failure(ValueError("bad"), Cause.BATCH)
    assert raised.description == "bad"
    assert raised.metadata[CAUSE].value == "batch"
    assert not raised.allow_retries
