"""A Redis that has lost its content → a rebuild from the log."""

from datetime import UTC, datetime

import dagster as dg

from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView
from featurestore.errors import FeatureStoreError
from featurestore_dagster.assets.online import REBUILD_TAG, rebuild_key
from featurestore_dagster.names import PLAIN, Keys
from featurestore_dagster.runs import LIVE
from featurestore_dagster.services import Connect, Services

JOB = "rebuild_online"


def sensor(project: Project, connect: Connect, keys: Keys = PLAIN) -> dg.SensorDefinition:
    """Requests a rebuild of the views that Redis lists hardly any ledger line of.

    A few missing lines are what a crash leaves, and the sensor of landed batches has them pushed again from their
    batches. Many, as after FLUSHALL or the loss of the append-only file, are filled faster from the log: one row per
    entity, whatever the landing zone still holds.
    """

    @dg.sensor(
        name="online_lost",
        target=dg.define_asset_job(JOB, selection=[rebuild_key(keys)], description="The log → the online store."),
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Requests a rebuild of the online store when Redis has lost its content.",
    )
    def online_lost(
        context: dg.SensorEvaluationContext,
    ) -> dg.RunRequest | dg.SkipReason:
        try:
            with connect() as services:
                lost = _lost(project, services)
        except FeatureStoreError as error:
            return dg.SkipReason(str(error))
        if not lost:
            return dg.SkipReason(
                "Redis lists the ledger's lines, but for what a crash leaves, which is pushed again from its batches"
            )
        if _is_running(context.instance):
            return dg.SkipReason("a rebuild is running")
        names = sorted({view.name for view in lost})
        return dg.RunRequest(
            run_config={"ops": {rebuild_key(keys).to_python_identifier(): {"config": {"views": names}}}},
            tags={REBUILD_TAG: ",".join(names)},
        )

    return online_lost


def _lost(project: Project, services: Services) -> tuple[FeatureView, ...]:
    now, backlog = datetime.now(UTC), services.backlog
    if backlog.is_quiet(project, (), services.online, parked=(), now=now):
        return ()
    return backlog.look(project, (), services.database, services.online, now=now).lost


def _is_running(instance: dg.DagsterInstance) -> bool:
    live = instance.get_run_records(dg.RunsFilter(statuses=list(LIVE)))
    return any(REBUILD_TAG in record.dagster_run.tags for record in live)
