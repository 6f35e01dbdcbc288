"""Entities that were erased: what was interrupted is finished, and each is looked at once more after some hours."""

from datetime import UTC, datetime

import dagster as dg

from featurestore.definitions.project import Project
from featurestore.errors import FeatureStoreError
from featurestore.landing.pending import Cause
from featurestore.recovery.erase import Holdings, carry_out, is_due, settle
from featurestore.settings import RedisSettings
from featurestore_dagster.names import DATABASE_POOL, PLAIN, RAW, Keys
from featurestore_dagster.resources import Given
from featurestore_dagster.runs import failure

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
        given = Given(context, keys)
        holdings = Holdings(
            project=project,
            zone=given.landing,
            database=given.database,
            lake=given.lake,
            online=given.online,
            redis_urls=redis.urls,
            redis_timeout_s=redis.timeout_s,
        )
        try:
            return dg.MaterializeResult(metadata=_go_on(holdings, datetime.now(UTC)))
        except FeatureStoreError as error:
            raise failure(error, Cause.INFRASTRUCTURE) from error

    return finish_erasures


def erasures_schedule(keys: Keys = PLAIN) -> dg.ScheduleDefinition:
    """Every hour."""
    job = dg.define_asset_job(
        keys.name(JOB), selection=[keys.erasures()], description="Finishes erasures, and looks once more."
    )
    return dg.ScheduleDefinition(
        name=keys.name(JOB), job=job, cron_schedule="50 * * * *", default_status=dg.DefaultScheduleStatus.RUNNING
    )


def _go_on(holdings: Holdings, now: datetime) -> dict[str, dg.MetadataValue]:
    known = holdings.erasures.all()
    unfinished = [one for one in known if one.entity_id]
    due = [one for one in known if is_due(one, now)]
    done = [carry_out(holdings, one, progress=_quietly) for one in unfinished] + [settle(holdings, one) for one in due]
    counts = {
        "erasures": len(known),
        "finished": len(unfinished),
        "settled": len(due),
        "rows": sum(one.rows for one in done),
        "files": sum(one.landed.files + one.lake_files for one in done),
    }
    return {name: dg.MetadataValue.int(count) for name, count in counts.items()}


def _quietly(_doing: str, _done: int, _of: int) -> None:
    pass
