"""Closed days of each view's log, moved from DuckDB to the lake."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from featurestore.definitions.durations import duration
from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView
from featurestore.errors import FeatureStoreError
from featurestore.landing.pending import Cause
from featurestore_dagster.assets.schema import copied_lineage, declared_in, log_columns, owners
from featurestore_dagster.checks.scope import versions_by_name
from featurestore_dagster.names import DATABASE_POOL, LAKE, PLAIN, Keys
from featurestore_dagster.resources import Given
from featurestore_dagster.runs import failure

if TYPE_CHECKING:
    from featurestore.database.client import Database
    from featurestore.offline.lake import Lake

JOB = "lake"


def lake_assets(project: Project, keys: Keys = PLAIN) -> list[dg.AssetsDefinition]:
    """One asset per view name, every version in it, those that are no longer declared too; one op for all, because
    Dagster takes its time to load an op."""
    views = {keys.lake(name): versions for name, versions in versions_by_name(project.feature_views).items()}
    if not views:
        return []

    @dg.multi_asset(
        name=keys.name("move_to_lake"),
        specs=[_spec(key, versions, keys) for key, versions in views.items()],
        required_resource_keys=keys.resources("database", "lake"),
        pool=DATABASE_POOL,
        can_subset=True,
    )
    def move_to_lake(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        given = Given(context, keys)
        failed: FeatureStoreError | None = None
        for key in sorted(context.selected_asset_keys):
            try:
                yield _moved(key, views[key], given.database, given.lake)
            except FeatureStoreError as error:  # of one view: the others are moved
                failed = failed or error
        if failed:
            raise failure(failed, Cause.INFRASTRUCTURE) from failed

    return [move_to_lake]


def lake_schedule(project: Project, keys: Keys = PLAIN) -> dg.ScheduleDefinition:
    """Every night."""
    views = dict.fromkeys(view.name for view in project.feature_views)
    job = dg.define_asset_job(
        keys.name(JOB),
        selection=[keys.lake(name) for name in views],
        description="Closed days of the log → Parquet files.",
    )
    return dg.ScheduleDefinition(
        name=keys.name(JOB), job=job, cron_schedule="20 2 * * *", default_status=dg.DefaultScheduleStatus.RUNNING
    )


def _spec(key: dg.AssetKey, versions: Sequence[FeatureView], keys: Keys) -> dg.AssetSpec:
    newest, log = versions[-1], keys.features(versions[-1].name)
    columns = log_columns(newest)
    return dg.AssetSpec(
        key,
        deps=[log],
        group_name=LAKE,
        kinds={"parquet"},
        description=f"Rows of {newest.name} that landed days ago, sorted by entity. Every reader sees them as before.",
        owners=owners(newest),
        metadata={
            **declared_in(newest),
            "dagster/column_schema": columns,
            "dagster/column_lineage": copied_lineage(columns, log),
        },
    )


def _moved(
    key: dg.AssetKey, versions: Sequence[FeatureView], database: "Database", lake: "Lake"
) -> dg.MaterializeResult:
    view = versions[0].name
    keep = {one.target: duration(one.keep, "keep") for one in versions if one.keep}
    moved = lake.move(database, view, datetime.now(UTC), keep=keep)
    manifest = lake.manifest()
    files = [
        file
        for log in (manifest.logs if manifest else ())
        if log.table.view == view
        for file in log.files
        if file.kind == "rows"
    ]
    return dg.MaterializeResult(
        asset_key=key,
        metadata={
            "dagster/row_count": dg.MetadataValue.int(sum(file.row_count for file in files)),
            "files": dg.MetadataValue.int(len(files)),
            "bytes": dg.MetadataValue.int(sum(file.size_bytes for file in files)),
            "moved_days": dg.MetadataValue.int(moved.days),
            "moved_rows": dg.MetadataValue.int(moved.rows),
        },
    )
