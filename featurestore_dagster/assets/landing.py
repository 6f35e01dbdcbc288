"""The landed files of each source: compacted, and removed once they are older than the source is kept."""

import dagster as dg

from featurestore.definitions.project import Project
from featurestore.definitions.source import Source
from featurestore_dagster.names import PLAIN, RAW, Keys

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
    @dg.asset(
        key=keys.landing(source.name),
        deps=[keys.raw(source.name)],
        group_name=RAW,
        kinds={"parquet"},
        required_resource_keys=keys.resources("landing", "database"),
        description=f"Files of {source.name}: one per partition and closed hour, with the same rows in the same order.",
    )
    def tend_files(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        from featurestore_dagster.steps.landing import tend_source

        return tend_source(context, project, source, keys)

    return tend_files
