"""What one look at Dagster and at the pipeline has seen. Plain values; a look never changes anything."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickStatus
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from featurestore.definitions.project import Project
from featurestore.landing.batch import Batch
from featurestore.landing.pending import find_pending
from featurestore_dagster.names import Keys
from featurestore_dagster.parking import sensor_cursor
from featurestore_dagster.services import Services

KINDS = {InstigatorType.SENSOR: "sensor", InstigatorType.SCHEDULE: "schedule"}
_CHECK_PASSED = {
    AssetCheckExecutionRecordStatus.SUCCEEDED: True,
    AssetCheckExecutionRecordStatus.FAILED: False,
}


@dataclass(frozen=True, slots=True)
class Tick:
    """The last tick of a sensor or schedule; times in seconds since 1970."""

    name: str
    kind: str
    at: float
    failed: bool


@dataclass(frozen=True, slots=True)
class AssetState:
    """When an asset was last materialized (seconds since 1970, None = never), and whether an attempt failed since."""

    asset: str
    materialized_at: float | None
    failed: bool


@dataclass(frozen=True, slots=True)
class CheckState:
    """What a check said last."""

    asset: str
    check: str
    passed: bool
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DagsterLook:
    """Dagster's own state."""

    runs: Mapping[str, int]  # by status, every status is there
    oldest_queued_at: float | None
    heartbeats: Mapping[str, float]  # by daemon
    ticks: tuple[Tick, ...]
    assets: tuple[AssetState, ...]
    checks: tuple[CheckState, ...]


@dataclass(frozen=True, slots=True)
class SourceBacklog:
    """What of a source has landed and is not in the log of every view."""

    batches: int = 0
    rows: int = 0
    parked: int = 0
    oldest_at: datetime | None = None  # when the oldest of them landed, those that are parked left out


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineLook:
    """What waits, by source."""

    backlog: Mapping[str, SourceBacklog] = field(default_factory=dict[str, SourceBacklog])


def look_at_dagster(
    instance: dg.DagsterInstance, assets: Sequence[dg.AssetKey], checks: Sequence[dg.AssetCheckKey]
) -> DagsterLook:
    """Read Dagster's storage; `assets` and `checks` are those that are declared, so the answer is bounded."""
    queued = instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]), limit=1, order_by="id", ascending=True
    )
    return DagsterLook(
        runs={
            status.value: instance.get_runs_count(dg.RunsFilter(statuses=[status])) for status in dg.DagsterRunStatus
        },
        oldest_queued_at=queued[0].create_timestamp.timestamp() if queued else None,
        heartbeats={name: beat.timestamp for name, beat in instance.get_daemon_heartbeats().items()},
        ticks=tuple(_ticks(instance)),
        assets=tuple(_assets(instance, assets)),
        checks=tuple(_checks(instance, checks)),
    )


def look_at_pipeline(project: Project, instance: dg.DagsterInstance, services: Services, keys: Keys) -> PipelineLook:
    """Compare the landing zone with the ledger.

    Raises:
        CorruptFileError: a landed file is damaged.
        TransientError: the database service does not answer.
    """
    landed = services.landing.batches()
    rows = services.backlog.ledger(project, services.database).rows
    pending = [one.batch for one in find_pending(landed, services.backlog.targets(), rows, unpushed=())]
    parked = sensor_cursor(instance, keys).parked
    return PipelineLook(
        backlog={
            source.name: _backlog([batch for batch in pending if batch.source == source.name], parked)
            for source in project.sources
        }
    )


def _ticks(instance: dg.DagsterInstance) -> Iterator[Tick]:
    for state in instance.all_instigator_state():
        last = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
        for tick in last:
            yield Tick(state.name, KINDS[state.instigator_type], tick.timestamp, tick.status is TickStatus.FAILURE)


def _assets(instance: dg.DagsterInstance, keys: Sequence[dg.AssetKey]) -> Iterator[AssetState]:
    entries = {record.asset_entry.asset_key: record.asset_entry for record in instance.get_asset_records(keys)}
    last_runs = [entry.last_run_id for entry in entries.values() if entry.last_run_id]
    records = instance.get_run_records(dg.RunsFilter(run_ids=last_runs)) if last_runs else []
    failed = {record.dagster_run.run_id for record in records if record.dagster_run.is_failure}
    for key in keys:
        entry = entries.get(key)
        last = entry.last_materialization_record if entry else None
        last_run = entry.last_run_id if entry else None
        yield AssetState(
            key.to_user_string(),
            last.timestamp if last else None,
            last_run in failed and (last is None or last.run_id != last_run),
        )


def _checks(instance: dg.DagsterInstance, keys: Sequence[dg.AssetCheckKey]) -> Iterator[CheckState]:
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    for key, record in latest.items():
        passed = _CHECK_PASSED.get(record.status)
        if passed is not None:
            yield CheckState(key.asset_key.to_user_string(), key.name, passed, record.create_timestamp)


def _backlog(waiting: Sequence[Batch], parked: frozenset[str]) -> SourceBacklog:
    alive = [batch for batch in waiting if batch.batch_id not in parked]
    return SourceBacklog(
        batches=len(alive),
        rows=sum(batch.rows for batch in alive),
        parked=len(waiting) - len(alive),
        oldest_at=min((batch.created_at for batch in alive), default=None),
    )
