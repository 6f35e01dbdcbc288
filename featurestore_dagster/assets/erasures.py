"""Entities that were erased: what was interrupted is finished, and each is looked at once more after some hours."""

import dagster as dg

from featurestore.definitions.project import Project
from featurestore.settings import RedisSettings
from featurestore_dagster.names import DATABASE_POOL, PLAIN, RAW, Keys

JOB = "finish_erasures"


def erasures_asset(project: Project, redis: RedisSettings, keys: Keys = PLAIN) -> dg.AssetsDefinition:
    """`featurestore erase` does what there is to do; this is for when it could not."""

    @dg.asset(
        key=keys.erasures(),
        deps=[keys.raw(source.name) for source in project.sources],
        group_name=RAW,
        kinds={"parquet", "duckdb", "redis"},
        description="Entities that were erased, of which keyed hashes stay. Interrupted erasures are finished here.",
        required_resource_keys=keys.resources("landing", "database", "lake", "online"),
        pool=DATABASE_POOL,
    )
    def finish_erasures(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        from featurestore_dagster.steps.erasures import finish

        return finish(context, project, redis, keys)

    return finish_erasures


def erasures_schedule(keys: Keys = PLAIN) -> dg.ScheduleDefinition:
    """Every hour."""
    job = dg.define_asset_job(
        keys.name(JOB), selection=[keys.erasures()], description="Finishes erasures, and looks once more."
    )
    return dg.ScheduleDefinition(
        name=keys.name(JOB), job=job, cron_schedule="50 * * * *", default_status=dg.DefaultScheduleStatus.RUNNING
    )
