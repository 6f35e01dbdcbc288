"""The landed files of each source: compacted, and removed once they are older than the source is kept."""

from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime

import dagster as dg

from featurestore.definitions.project import Project
from featurestore.definitions.source import Source
from featurestore.errors import FeatureStoreError
from featurestore.landing.batch import Batch
from featurestore.landing.pending import Cause, find_pending
from featurestore.landing.retention import tend
from featurestore.offline.lake import first_outside
from featurestore_dagster.backlog import Backlog
from featurestore_dagster.names import PLAIN, RAW, Keys
from featurestore_dagster.resources import Given
from featurestore_dagster.runs import failure

JOB = "landing"


def landing_assets(project: Project, keys: Keys = PLAIN) -> list[dg.AssetsDefinition]:
    """One asset per source."""
    return [_landing_asset(project, source, keys) for source in project.sources]


def landing_schedule(project: Project, keys: Keys = PLAIN) -> dg.ScheduleDefinition:
    """Every hour."""
    job = dg.define_asset_job(
        keys.name(JOB),
        selection=[keys.landing(source.name) for source in project.sources],
        description="Closed hours → one file each; what is too old goes.",
    )
    return dg.ScheduleDefinition(
        name=keys.name(JOB), job=job, cron_schedule="40 * * * *", default_status=dg.DefaultScheduleStatus.RUNNING
    )


def _landing_asset(project: Project, source: Source, keys: Keys) -> dg.AssetsDefinition:
    targets = [view.target for view in project.feature_views if view.source.name == source.name]

    @dg.asset(
        key=keys.landing(source.name),
        deps=[keys.raw(source.name)],
        group_name=RAW,
        kinds={"parquet"},
        required_resource_keys=keys.resources("landing", "database"),
        description=f"Files of {source.name}: one per partition and closed hour, with the same rows in the same order.",
    )
    def tend_files(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        given = Given(context, keys)
        landing, database = given.landing, given.database
        try:
            backlog = Backlog()
            ledger = backlog.ledger(project, database)

            now = datetime.now(UTC)
            outside = {target: first_outside(database, target) for target in targets} if source.keep else {}

            def is_applied(batch: Batch) -> bool:
                return not find_pending([batch], backlog.targets(), ledger.rows, ())

            def is_in_lake(batch: Batch) -> bool:
                rows = ((ledger.rows.get((batch.batch_id, target)), first) for target, first in outside.items())
                return is_applied(batch) and not any(row and first and row.commit_seq >= first for row, first in rows)

            with landing.erasures.alone() if landing.erasures else nullcontext():
                done = tend(landing, source, now, is_applied=is_applied, is_in_lake=is_in_lake)
        except FeatureStoreError as error:
            raise failure(error, Cause.INFRASTRUCTURE) from error
        return dg.MaterializeResult(
            metadata={name: dg.MetadataValue.int(count) for name, count in asdict(done).items()}
        )

    return tend_files
