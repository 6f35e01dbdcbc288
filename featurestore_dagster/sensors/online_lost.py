"""A Redis that has lost its content, or has what a restored log has not → a rebuild from the log."""

from collections.abc import Callable, Sequence
from datetime import datetime

import dagster as dg
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView
from featurestore.errors import FeatureStoreError
from featurestore.landing.batch import utc_now
from featurestore_dagster.assets.online import ENTITY_PIECES, PIECES, REBUILD_TAG, rebuild_key
from featurestore_dagster.names import PLAIN, Keys
from featurestore_dagster.runs import LIVE
from featurestore_dagster.services import Connect, Services

JOB = "rebuild_online"


def sensor(
    project: Project, connect: Connect, keys: Keys = PLAIN, *, clock: Callable[[], datetime] = utc_now
) -> dg.SensorDefinition:
    """Requests a rebuild of the views whose values cannot be pushed again from their batches; see backlog.Backlog.

    Pieces that an earlier run has done are left out.
    """

    @dg.sensor(
        name=keys.name("online_lost"),
        target=dg.define_asset_job(
            keys.name(JOB), selection=[rebuild_key(keys)], description="The log → the online store."
        ),
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Requests a rebuild of the online store when Redis has lost its content, or the log was restored.",
    )
    def online_lost(
        context: dg.SensorEvaluationContext,
    ) -> dg.RunRequest | dg.SkipReason:
        try:
            with connect() as services:
                lost, pieces = _lost(project, services, clock())
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
            tags={
                REBUILD_TAG: ",".join(names),
                ASSET_PARTITION_RANGE_START_TAG: ENTITY_PIECES.get_partition_keys()[pieces[0]],
                ASSET_PARTITION_RANGE_END_TAG: ENTITY_PIECES.get_partition_keys()[pieces[-1]],
            },
        )

    return online_lost


def _lost(project: Project, services: Services, now: datetime) -> tuple[tuple[FeatureView, ...], Sequence[int]]:
    """The views, and which pieces of them are not filled yet."""
    backlog = services.backlog
    if backlog.is_quiet(project, (), services.online, parked=(), now=now):
        return (), ()
    landed = [batch for source in project.sources for batch in services.landing.batches(source.name)]
    lost = backlog.look(project, landed, services.database, services.online, now=now).lost
    log = backlog.ledger(project, services.database).epoch
    return lost, sorted({piece for view in lost for piece in services.online.unfilled(view, PIECES, log)})


def _is_running(instance: dg.DagsterInstance) -> bool:
    live = instance.get_run_records(dg.RunsFilter(statuses=list(LIVE)))
    return any(REBUILD_TAG in record.dagster_run.tags for record in live)
