"""Keeps Dagster's own state small."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

import dagster as dg
from dagster._core.storage.tags import PARTITION_NAME_TAG

from featurestore_dagster.names import LANE_TAG, PLAIN, Keys
from featurestore_dagster.runs import ENDED_BADLY

JOB = "purge"
KEEP_RUNS = 2_000  # the newest, whatever they did
KEEP_DAYS = 30  # of a source's hour, the last run: it is what shows the hour as materialized
KEEP_RUNLESS_DAYS = 7  # evaluations of checks and other events without a run
PURGED_AT_ONCE = 2_000

FINISHED = (dg.DagsterRunStatus.SUCCESS, *ENDED_BADLY)


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run as far as keeping it is concerned; two runs of one `work` did the same thing."""

    run_id: str
    work: str
    ended_at: datetime


def superfluous(runs: Iterable[FinishedRun], now: datetime, *, keep: int = KEEP_RUNS) -> Iterator[str]:
    """The ids of runs that may go, given newest first: beyond the newest, those with a later run of the same work, and
    those that are old."""
    seen: set[str] = set()
    for number, run in enumerate(runs):
        is_repeated = bool(run.work) and run.work in seen
        seen.add(run.work)
        if number >= keep and (is_repeated or not run.work or now - run.ended_at > timedelta(days=KEEP_DAYS)):
            yield run.run_id


@dg.op(name="delete_what_is_old")
def purge_op(context: dg.OpExecutionContext) -> None:
    """Delete runs with their events and logs, and what no run owns."""
    instance, now = context.instance, datetime.now(UTC)
    run_ids = list(islice(superfluous(_finished(instance), now), PURGED_AT_ONCE))
    for run_id in run_ids:
        instance.delete_run(run_id)
        instance.compute_log_manager.delete_logs(prefix=[run_id])
    orphans = purge_orphans(instance, now, run_ids)
    context.log.info("%d runs and %d records without a run were deleted", len(run_ids), orphans)


def purge_job(keys: Keys = PLAIN) -> dg.JobDefinition:
    @dg.job(name=keys.name(JOB), description="Deletes old runs, events and logs.", executor_def=dg.in_process_executor)
    def purge() -> None:
        purge_op()

    return purge


def purge_schedule(keys: Keys = PLAIN) -> dg.ScheduleDefinition:
    """Hourly, when there is enough to delete."""

    @dg.schedule(
        name=keys.name(JOB),
        job=purge_job(keys),
        cron_schedule="7 * * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def purge(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        runs = context.instance.get_runs_count(dg.RunsFilter(statuses=list(FINISHED)))
        return dg.RunRequest() if runs > KEEP_RUNS else dg.SkipReason(f"{runs} runs, of which {KEEP_RUNS} are kept")

    return purge


def purge_orphans(instance: dg.DagsterInstance, now: datetime, run_ids: Sequence[str]) -> int:
    """Delete what `delete_run` leaves of these runs or never had one: their evaluations of checks and old ones, but for
    each check's last, and old events without a run."""
    import sqlalchemy as sql  # here: with these, every load of the code would take half a second longer
    from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, SqlEventLogStorageTable
    from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
    from dagster._core.storage.legacy_storage import LegacyEventLogStorage

    storage = instance.event_log_storage
    if isinstance(storage, LegacyEventLogStorage):
        storage = storage._storage.event_log_storage  # noqa: SLF001  # there is no other way in
    if not isinstance(storage, SqlEventLogStorage):
        return 0
    until = (now - timedelta(days=KEEP_RUNLESS_DAYS)).replace(tzinfo=None)
    checks, events = AssetCheckExecutionsTable, SqlEventLogStorageTable
    with storage.index_connection() as connection:
        last = sql.select(sql.func.max(checks.c.id)).group_by(checks.c.asset_key, checks.c.check_name)
        is_over = sql.or_(checks.c.create_timestamp < until, checks.c.run_id.in_(run_ids))
        evaluations = checks.delete().where(is_over, checks.c.id.not_in(last))
        runless = events.delete().where(events.c.timestamp < until, events.c.run_id == "")
        return sum(connection.execute(statement).rowcount for statement in (evaluations, runless))


def _finished(instance: dg.DagsterInstance) -> Iterator[FinishedRun]:
    cursor: str | None = None
    while records := instance.get_run_records(dg.RunsFilter(statuses=list(FINISHED)), limit=1_000, cursor=cursor):
        for record in records:
            run = record.dagster_run
            source, partition = run.tags.get(LANE_TAG, "").rpartition(".")[0], run.tags.get(PARTITION_NAME_TAG, "")
            ok = run.status is dg.DagsterRunStatus.SUCCESS
            work = f"{source} {partition}" if source and ok else ""
            yield FinishedRun(run.run_id, work, record.update_timestamp)
        cursor = records[-1].dagster_run.run_id
