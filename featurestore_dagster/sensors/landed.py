"""Landed batches → runs."""

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg

from featurestore.definitions.project import Project
from featurestore.errors import FeatureStoreError
from featurestore.landing.batch import Batch, utc_now
from featurestore.landing.pending import LiveRun, RunLimits, plan_runs
from featurestore.settings import DagsterSettings
from featurestore_dagster.liveness import RunProcesses
from featurestore_dagster.names import LANDED_SENSOR, PLAIN, Keys
from featurestore_dagster.parking import released
from featurestore_dagster.partitions import has_partition
from featurestore_dagster.runs import failed_runs, live_runs, run_request
from featurestore_dagster.sensors.cursor import Cursor
from featurestore_dagster.services import Connect, Services

if TYPE_CHECKING:
    from featurestore.landing.zone import LandingZone
    from featurestore_dagster.backlog import Waiting

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
    tick = _Tick(project, keys, settings)

    @dg.sensor(
        name=keys.name(LANDED_SENSOR),
        target=dg.define_asset_job(
            keys.name(JOB), selection=_targets(project, keys), description="Landed batches → features."
        ),
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Requests runs for landed batches that the log or the online store lacks.",
    )
    def landed_batches(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            with connect() as services:
                return tick(context, services, clock())
        except FeatureStoreError as error:
            return dg.SkipReason(str(error))

    return landed_batches


class _Tick:
    """One look at what waits, and what is requested for it."""

    def __init__(self, project: Project, keys: Keys, settings: DagsterSettings) -> None:
        self._project, self._keys = project, keys
        self._processes = RunProcesses()
        self._limits = RunLimits.of(settings)

    def __call__(
        self, context: dg.SensorEvaluationContext, services: Services, now: datetime
    ) -> dg.SensorResult | dg.SkipReason:
        cursor, backlog = Cursor.from_json(context.cursor, now), services.backlog
        if cursor.parked:
            cursor = cursor.after_release(released(context.instance))
        landed, damaged = self._landed(services.landing)
        if backlog.is_quiet(self._project, landed, services.online, parked=cursor.parked, now=now):
            return dg.SkipReason("; ".join([_quiet_text(len(landed), len(cursor.parked)), *damaged]))
        self._processes.fail_dead(context.instance)  # a platform that was killed goes on at once
        live = live_runs(context.instance, now, self._keys)  # before the ledger: what ends in between counts as done
        waiting = backlog.look(self._project, landed, services.database, services.online, now=now)
        failed = failed_runs(context.instance, cursor.failures_until, cursor.seen_runs, self._keys)
        cursor = cursor.after_failures(failed, interval_s=self._limits.run_interval_s)
        cursor = cursor.only_for({one.batch.batch_id for one in waiting.pending})
        groups = plan_runs(
            waiting.pending,
            live=live,
            troubles=cursor.troubles,
            requested=cursor.requested,
            limits=self._limits,
            now=now,
            has_partition=has_partition,
        )
        return dg.SensorResult(
            run_requests=[run_request(group, self._project, self._keys) for group in groups],
            skip_reason=None if groups else "; ".join([_waiting_text(waiting, live, cursor), *damaged]),
            cursor=cursor.after_requests(groups, now).to_json(),
        )

    def _landed(self, landing: "LandingZone") -> tuple[list[Batch], list[str]]:
        """The batches of the declared sources, and what cannot be read of any source."""
        landed = [batch for source in self._project.sources for batch in landing.batches(source.name)]
        return landed, landing.alarms()


def _targets(project: Project, keys: Keys) -> list[dg.AssetKey]:
    return [
        *(keys.raw(source.name) for source in project.sources),
        *dict.fromkeys(keys.features(view.name) for view in project.feature_views),
        *dict.fromkeys(keys.online(view.name) for view in project.feature_views if view.online_features),
    ]


def _quiet_text(landed: int, parked: int) -> str:
    return f"nothing waits; {landed} batches have landed" + (f", {parked} are parked" if parked else "")


def _waiting_text(waiting: "Waiting", live: list[LiveRun], cursor: Cursor) -> str:
    if not waiting.pending:
        return "nothing waits"
    parked = len(cursor.parked)
    named = f", {parked} of them parked" if parked else ""
    return f"{len(waiting.pending)} batches wait{named}; {len(live)} runs are live"
