"""What the step of erasures does: those that were interrupted are finished, the others looked at once more."""

from datetime import UTC, datetime

import dagster as dg

from featurestore.definitions.project import Project
from featurestore.errors import FeatureStoreError
from featurestore.landing.pending import Cause
from featurestore.recovery.erase import Holdings, carry_out, is_due, settle
from featurestore.settings import RedisSettings
from featurestore_dagster.names import Keys
from featurestore_dagster.resources import Given
from featurestore_dagster.runs import failure


def finish(
    context: dg.AssetExecutionContext, project: Project, redis: RedisSettings, keys: Keys
) -> dg.MaterializeResult:
    """What `featurestore erase` could not do."""
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
