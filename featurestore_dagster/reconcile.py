"""Nothing is forgotten: what the sensor of landed batches should have seen to long ago."""

from collections.abc import Callable
from datetime import datetime, timedelta

import dagster as dg

from featurestore.definitions.project import Project
from featurestore.errors import FeatureStoreError
from featurestore.landing.batch import utc_now
from featurestore.landing.pending import RunLimits, plan_runs
from featurestore.settings import DagsterSettings
from featurestore_dagster.liveness import RunProcesses
from featurestore_dagster.names import PLAIN, Keys
from featurestore_dagster.parking import sensor_cursor
from featurestore_dagster.partitions import has_partition
from featurestore_dagster.runs import live_runs, run_request
from featurestore_dagster.sensors.landed import JOB
from featurestore_dagster.services import Connect, Services

OVERDUE = timedelta(minutes=15)


def schedule(
    project: Project,
    connect: Connect,
    settings: DagsterSettings,
    keys: Keys = PLAIN,
    *,
    clock: Callable[[], datetime] = utc_now,
) -> dg.ScheduleDefinition:
    """Compares landing zone, ledger and pushed positions anew, and requests runs for what is overdue: the sensor was
    stopped, or believed something that is no longer so. Also fails runs whose process is dead, so that they hold
    neither their lane nor their places in the pools.
    """
    limits = RunLimits.of(settings)

    @dg.schedule(
        name=keys.name("reconcile"),
        job_name=keys.name(JOB),
        cron_schedule="*/5 * * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Fails dead runs; requests runs for batches that nobody has seen to.",
    )
    def reconcile(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        dead = RunProcesses().fail_dead(context.instance)
        try:
            with connect() as services:
                requests = _overdue(project, services, context.instance, limits, keys, clock())
        except FeatureStoreError as error:
            return dg.SkipReason(str(error))
        failed = f"; {len(dead)} dead runs were failed" if dead else ""
        return requests or dg.SkipReason(f"every batch is applied and pushed, on its way, or parked{failed}")

    return reconcile


def _overdue(
    project: Project, services: Services, instance: dg.DagsterInstance, limits: RunLimits, keys: Keys, now: datetime
) -> list[dg.RunRequest]:
    cursor, live = sensor_cursor(instance, keys), live_runs(instance, now, keys)
    landed = [batch for source in project.sources for batch in services.landing.batches(source.name)]
    services.backlog.forget()
    waiting = services.backlog.look(project, landed, services.database, services.online, now=now)
    groups = plan_runs(
        [one for one in waiting.pending if now - one.batch.created_at > OVERDUE],
        live=live,
        troubles=cursor.troubles,
        requested=cursor.requested,
        limits=limits,
        now=now,
        has_partition=has_partition,
    )
    return [run_request(group, project, keys, run_key=group.lane) for group in groups]
