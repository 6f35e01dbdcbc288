"""Runs and the batches they carry: a group of batches as a RunRequest; live and failed runs as what they were given."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.execution.plan.objects import StepFailureData
from dagster_shared.error import SerializableErrorInfo

from featurestore.definitions.project import Project
from featurestore.landing.pending import BatchGroup, Cause, Failure, LiveRun
from featurestore_dagster.names import EXPECTATIONS, LANE_TAG, PLAIN, Keys
from featurestore_dagster.partitions import key_of

LIVE = (
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
ENDED_BADLY = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
CREATED_BUT_NEVER_QUEUED = timedelta(minutes=3)  # the daemon died between the two
CAUSE = "featurestore/cause"  # in the metadata of a failed step
MAX_RUNTIME_S = 1800
FAILED_RUNS = 200  # looked at per tick
OVERLAP = timedelta(seconds=10)  # failures are read again by so much, because they are not written in order

# Of its events, a run writes only warnings to the log file of its process; the UI has all of them.
QUIET = {"loggers": {"console": {"config": {"log_level": "WARNING"}}}}

# Interrupted by a signal, out of memory, Dagster's own storage locked.
_NOT_THE_ROWS = frozenset({"DagsterExecutionInterruptedError", "KeyboardInterrupt", "MemoryError", "OperationalError"})


@dataclass(frozen=True, slots=True)
class FailedRun:
    """A run that named batches and ended badly."""

    run_id: str
    updated_at: datetime
    failure: Failure


def run_request(
    group: BatchGroup, project: Project, keys: Keys = PLAIN, *, run_key: str | None = None
) -> dg.RunRequest:
    """One run for a group: the raw batches, and the views that miss any of them.

    Of a sensor, without a run key: Dagster requests a key once and never again, but the same batches may have to be run
    again (a failure, an emptied Redis). What must not be requested twice is known from live runs and the ledger.
    """
    views = {view.name for view in project.feature_views if view.target in group.targets}
    online = {view.name for view in project.feature_views if view.name in views and view.online_features}
    return dg.RunRequest(
        run_key=run_key,
        partition_key=key_of(group.hour),
        run_config=with_batches(group.batch_ids, keys) | QUIET,
        tags={LANE_TAG: keys.lane_tag(group.lane), "dagster/max_runtime": str(MAX_RUNTIME_S)},
        asset_selection=[
            keys.raw(group.source),
            *(keys.features(name) for name in sorted(views)),
            *(keys.online(name) for name in sorted(online)),
        ],
        asset_check_keys=[dg.AssetCheckKey(keys.features(name), EXPECTATIONS) for name in sorted(views)],
    )


def with_batches(batch_ids: Sequence[str], keys: Keys = PLAIN) -> dict[str, Any]:
    """The run configuration that selects batches."""
    return {"resources": {keys.name("batches"): {"config": {"batch_ids": list(batch_ids)}}}}


def batches_of(run_config: Mapping[str, Any], keys: Keys = PLAIN) -> frozenset[str]:
    """The batches that a run's configuration names; none if it takes those of its hours, or is another project's."""
    value: Any = run_config
    for name in ("resources", keys.name("batches"), "config", "batch_ids"):
        value = value.get(name) if isinstance(value, Mapping) else None
    return frozenset(value or ())


def live_runs(instance: dg.DagsterInstance, now: datetime, keys: Keys = PLAIN) -> list[LiveRun]:
    """The runs that may still do their work. Found by status alone: tag filters are slow in a long history."""
    records = instance.get_run_records(dg.RunsFilter(statuses=list(LIVE)))
    return [
        LiveRun(keys.lane_of(run.tags.get(LANE_TAG, "")), batches_of(run.run_config, keys))
        for record in records
        if (run := record.dagster_run) and not _is_stillborn(record, now)
    ]


def failed_runs(
    instance: dg.DagsterInstance, since: datetime, seen: Collection[str], keys: Keys = PLAIN
) -> list[FailedRun]:
    """Runs that named batches and ended badly since then, in that order; those in `seen` are left out."""
    query = dg.RunsFilter(statuses=list(ENDED_BADLY), updated_after=since - OVERLAP)
    records = instance.get_run_records(query, limit=FAILED_RUNS, order_by="update_timestamp", ascending=True)
    found: list[FailedRun] = []
    for record in records:
        run = record.dagster_run
        batch_ids = batches_of(run.run_config, keys)
        if batch_ids and run.run_id not in seen:
            cause, reason = _cause(instance, run)
            ended = datetime.fromtimestamp(record.end_time, UTC) if record.end_time else record.update_timestamp
            failure_ = Failure(batch_ids=batch_ids, cause=cause, reason=reason, at=ended)
            found.append(FailedRun(run.run_id, record.update_timestamp, failure_))
    return found


def run_that_applied(
    instance: dg.DagsterInstance, batch_id: str, at: datetime, keys: Keys = PLAIN
) -> dg.RunRecord | None:
    """The run that was given a batch and was at work at a time; None where it has been purged, or took whole hours."""
    query = dg.RunsFilter(created_after=at - timedelta(seconds=MAX_RUNTIME_S), created_before=at)
    for record in instance.get_run_records(query, limit=FAILED_RUNS):
        if batch_id in batches_of(record.dagster_run.run_config, keys):
            return record
    return None


def failure(error: Exception, cause: Cause) -> dg.Failure:
    """What a step raises so that the sensor knows whose fault it was."""
    return dg.Failure(description=str(error), metadata={CAUSE: cause.value}, allow_retries=False)


def reason_of(failed: StepFailureData) -> str:
    """Why a step failed, in the words of whatever raised."""
    if failed.user_failure_data is not None:
        return failed.user_failure_data.description or ""
    error = _root(failed)
    return f"{error.cls_name}: {error.message.strip()}" if error else ""


def _cause(instance: dg.DagsterInstance, run: dg.DagsterRun) -> tuple[Cause, str]:
    if run.status is dg.DagsterRunStatus.CANCELED:
        return Cause.INFRASTRUCTURE, "the run was cancelled"
    found: dict[Cause, str] = {}
    for record in instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE, limit=10).records:
        failed = record.event_log_entry.get_dagster_event().step_failure_data
        found.setdefault(_cause_of(failed), reason_of(failed))
    # Where both happened, the services were not well: judge the batch when they are.
    for cause in (Cause.INFRASTRUCTURE, Cause.BATCH):
        if cause in found:
            return cause, found[cause]
    return Cause.UNKNOWN, "the run ended without saying why"


def _cause_of(failed: StepFailureData) -> Cause:
    if failed.user_failure_data is not None:
        named = failed.user_failure_data.metadata.get(CAUSE)
        return Cause(str(named.value)) if named else Cause.BATCH
    # An error that nobody foresaw, of a user's transform or ours: the rows bring it about, unless its name says not.
    error = _root(failed)
    return Cause.INFRASTRUCTURE if error is not None and error.cls_name in _NOT_THE_ROWS else Cause.BATCH


def _root(failed: StepFailureData) -> SerializableErrorInfo | None:
    """The error itself, without what Dagster wraps it in."""
    return failed.error.cause or failed.error if failed.error else None


def _is_stillborn(record: dg.RunRecord, now: datetime) -> bool:
    return (
        record.dagster_run.status is dg.DagsterRunStatus.NOT_STARTED
        and now - record.create_timestamp > CREATED_BUT_NEVER_QUEUED
    )
