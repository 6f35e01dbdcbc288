"""Closed days of each view's log, moved from DuckDB to the lake."""

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg

from featurestore.database.client import Database
from featurestore.definitions.durations import duration
from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView
from featurestore.errors import FeatureStoreError
from featurestore.landing.pending import Cause
from featurestore.offline.lake import Lake
from featurestore_dagster.checks.scope import versions_by_name
from featurestore_dagster.names import DATABASE_POOL, LAKE, PLAIN, Keys
from featurestore_dagster.runs import failure

JOB = "lake"


def lake_assets(project: Project, keys: Keys = PLAIN) -> list[dg.AssetsDefinition]:
    """One asset per view name; a step moves every version, those that are no longer declared too."""
    versions = versions_by_name(project.feature_views)
    return [_lake_asset(name, views, keys) for name, views in versions.items()]


def lake_schedule(project: Project, keys: Keys = PLAIN) -> dg.ScheduleDefinition:
    """Every night."""
    views = dict.fromkeys(view.name for view in project.feature_views)
    job = dg.define_asset_job(
        JOB, selection=[keys.lake(name) for name in views], description="Closed days of the log → Parquet files."
    )
    return dg.ScheduleDefinition(
        name=JOB, job=job, cron_schedule="20 2 * * *", default_status=dg.DefaultScheduleStatus.RUNNING
    )


def _lake_asset(view: str, versions: Sequence[FeatureView], keys: Keys) -> dg.AssetsDefinition:
    keep = {one.target: duration(one.keep, "keep") for one in versions if one.keep}

    @dg.asset(
        key=keys.lake(view),
        deps=[keys.features(view)],
        group_name=LAKE,
        kinds={"parquet"},
        description=f"Rows of {view} that landed some days ago, sorted by entity. Every reader sees them as before.",
        pool=DATABASE_POOL,
    )
    def move_to_lake(database: dg.ResourceParam[Database], lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
        try:
            moved = lake.move(database, view, datetime.now(UTC), keep=keep)
            manifest = lake.manifest()
        except FeatureStoreError as error:
            raise failure(error, Cause.INFRASTRUCTURE) from error
        files = [
            file
            for log in (manifest.logs if manifest else ())
            if log.table.view == view
            for file in log.files
            if file.kind == "rows"
        ]
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": dg.MetadataValue.int(sum(file.row_count for file in files)),
                "files": dg.MetadataValue.int(len(files)),
                "bytes": dg.MetadataValue.int(sum(file.size_bytes for file in files)),
                "moved_days": dg.MetadataValue.int(moved.days),
                "moved_rows": dg.MetadataValue.int(moved.rows),
            }
        )

    return move_to_lake
