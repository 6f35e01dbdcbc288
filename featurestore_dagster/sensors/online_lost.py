"""A Redis that has lost its content → a rebuild from the log."""

from datetime import UTC, datetime

import dagster as dg

from featurestore.database.client import Database
from featurestore.definitions.project import Project
from featurestore.errors import FeatureStoreError
from featurestore.online.store import OnlineStore
from featurestore_dagster.assets.online import REBUILD_TAG, rebuild_key
from featurestore_dagster.backlog import Backlog
from featurestore_dagster.names import PLAIN, Keys
from featurestore_dagster.runs import LIVE


def sensor(project: Project, keys: Keys = PLAIN) -> dg.SensorDefinition:
    """Requests a rebuild of the views that Redis lists hardly any ledger line of.

    A few missing lines are what a crash leaves, and the sensor of landed batches has them pushed again from their
    batches. Many, as after FLUSHALL or the loss of the append-only file, are filled faster from the log: one row per
    entity, whatever the landing zone still holds.
    """

    @dg.sensor(
        name="online_lost",
        target=dg.AssetSelection.assets(rebuild_key(keys)),
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Requests a rebuild of the online store when Redis has lost its content.",
    )
    def online_lost(
        context: dg.SensorEvaluationContext,
        database: dg.ResourceParam[Database],
        online: dg.ResourceParam[OnlineStore],
        backlog: dg.ResourceParam[Backlog],
    ) -> dg.RunRequest | dg.SkipReason:
        now = datetime.now(UTC)
        try:
            if backlog.is_quiet(project, (), online, parked=(), now=now):
                return dg.SkipReason("Redis lists every line of the ledger")
            lost = backlog.look(project, (), database, online, now=now).lost
        except FeatureStoreError as error:
            return dg.SkipReason(str(error))
        if not lost:
            return dg.SkipReason("Redis lacks at most what a crash leaves; that is pushed again from its batches")
        if _is_running(context.instance):
            return dg.SkipReason("a rebuild is running")
        names = sorted({view.name for view in lost})
        return dg.RunRequest(
            run_config={"ops": {rebuild_key(keys).to_python_identifier(): {"config": {"views": names}}}},
            tags={REBUILD_TAG: ",".join(names)},
        )

    return online_lost


def _is_running(instance: dg.DagsterInstance) -> bool:
    live = instance.get_run_records(dg.RunsFilter(statuses=list(LIVE)))
    return any(REBUILD_TAG in record.dagster_run.tags for record in live)
