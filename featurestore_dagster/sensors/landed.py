"""Landed batches → runs."""

from collections.abc import Callable
from datetime import datetime

import dagster as dg

from featurestore.definitions.project import Project
from featurestore.errors import FeatureStoreError
from featurestore.landing.pending import LiveRun, RunLimits, plan_runs
from featurestore.landing.zone import utc_now
from featurestore.settings import DagsterSettings
from featurestore_dagster.backlog import Waiting
from featurestore_dagster.names import PLAIN, Keys
from featurestore_dagster.partitions import has_partition
from featurestore_dagster.runs import failed_runs, live_runs, run_request
from featurestore_dagster.sensors.cursor import Cursor
from featurestore_dagster.services import Connect, Services

JOB = "apply_batches"
DEFAULTS = DagsterSettings()


def sensor(
    project: Project,
    connect: Connect,
    settings: DagsterSettings = DEFAULTS,
    keys: Keys = PLAIN,
    *,
    clock: Callable[[], datetime] = utc_now,
) -> dg.SensorDefinition:
    """Requests a run for each group of landed batches that the log or the online store lacks.

    The ledger is the truth, the cursor a hint. A service that is down makes the tick a skip that says which; nothing
    is requested and nothing is parked for it. A quiet tick lists the landing zone and asks Redis for its positions.
    """
    limits = RunLimits(
        lanes=settings.lanes,
        run_rows=settings.run_rows,
        run_batches=settings.run_batches,
        run_interval_s=settings.run_interval_s,
    )

    @dg.sensor(
        name="landed_batches",
        target=dg.define_asset_job(JOB, selection=_targets(project, keys), description="Landed batches → features."),
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Requests runs for landed batches that the log or the online store lacks.",
    )
    def landed_batches(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            with connect() as services:
                return _tick(context, services, project, limits, keys, clock())
        except FeatureStoreError as error:
            return dg.SkipReason(str(error))

    return landed_batches


def _tick(
    context: dg.SensorEvaluationContext,
    services: Services,
    project: Project,
    limits: RunLimits,
    keys: Keys,
    now: datetime,
) -> dg.SensorResult | dg.SkipReason:
    cursor = Cursor.from_json(context.cursor, now)
    landed, backlog = services.landing.batches(), services.backlog
    if backlog.is_quiet(project, landed, services.online, parked=cursor.parked, now=now):
        return dg.SkipReason(_quiet_text(len(landed), len(cursor.parked)))
    live = live_runs(context.instance, now)  # before the ledger: what ends in between counts as done
    waiting = backlog.look(project, landed, services.database, services.online, now=now)
    failed = failed_runs(context.instance, cursor.failures_until, cursor.seen_runs)
    cursor = cursor.after_failures(failed, interval_s=limits.run_interval_s)
    cursor = cursor.only_for({one.batch.batch_id for one in waiting.pending})
    groups = plan_runs(
        waiting.pending,
        live=live,
        troubles=cursor.troubles,
        requested=cursor.requested,
        limits=limits,
        now=now,
        has_partition=has_partition,
    )
    return dg.SensorResult(
        run_requests=[run_request(group, project, keys) for group in groups],
        skip_reason=None if groups else _waiting_text(waiting, live, cursor),
        cursor=cursor.after_requests(groups, now).to_json(),
    )


def _targets(project: Project, keys: Keys) -> list[dg.AssetKey]:
    return [
        *(keys.raw(source.name) for source in project.sources),
        *dict.fromkeys(keys.features(view.name) for view in project.feature_views),
        *dict.fromkeys(keys.online(view.name) for view in project.feature_views if view.online_features),
    ]


def _quiet_text(landed: int, parked: int) -> str:
    return f"nothing waits; {landed} batches have landed" + (f", {parked} are parked" if parked else "")


def _waiting_text(waiting: Waiting, live: list[LiveRun], cursor: Cursor) -> str:
    if not waiting.pending:
        return "nothing waits"
    parked = len(cursor.parked)
    named = f", {parked} of them parked" if parked else ""
    return f"{len(waiting.pending)} batches wait{named}; {len(live)} runs are live"
