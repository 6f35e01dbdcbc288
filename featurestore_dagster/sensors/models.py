"""Changes in the container of models → publication."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import dagster as dg
import msgspec

from featurestore.errors import FeatureStoreError
from featurestore.landing.zone import utc_now
from featurestore.models import history
from featurestore.models.history import BlobVersion, Scan
from featurestore.models.metadata import ModelVersion
from featurestore.models.publish import ModelStore
from featurestore_dagster.names import PLAIN, Keys
from featurestore_dagster.runs import LIVE
from featurestore_dagster.services import Blobs

JOB = "publish_models"
STATE_TAG = "featurestore/models"  # the container's state that a run is to publish
FIRST_PAUSE = timedelta(minutes=1)
LONGEST_PAUSE = timedelta(hours=1)
SHOWN = 16  # characters of a state


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """What was requested last, and how often in vain."""

    state: str = ""
    tries: int = 0
    requested: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    succeeded: bool = False


def sensor(
    open_blobs: Callable[[], Blobs],
    open_models: Callable[[], ModelStore],
    keys: Keys = PLAIN,
    *,
    clock: Callable[[], datetime] = utc_now,
) -> dg.SensorDefinition:
    """Requests a publication when a metadata file appears or changes, and while Redis serves another version than the
    one in production: after a failed run, an emptied Redis, or a refusal, which is looked at again within the hour."""
    opened: list[Blobs] = []  # kept between ticks: it knows the files that it has read

    @dg.sensor(
        name="models",
        target=dg.define_asset_job(
            JOB, selection=[keys.models("metadata"), keys.models("production")], description="Blobs → log and Redis."
        ),
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Requests a publication when the container of models changes, or Redis serves something else.",
    )
    def models(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            if not opened:
                opened.append(open_blobs())
            scan = opened[0].scan()
            served = open_models()
            try:
                missing = not_served(scan, served)
            finally:
                served.close()
        except FeatureStoreError as error:
            return dg.SkipReason(str(error))
        return _decide(context, state_of(scan), missing, clock())

    return models


def state_of(scan: Scan) -> str:
    """Changes when a metadata file does."""
    files = sorted([f"{one.location} {one.etag}" for one in scan.versions] + [one.location for one in scan.unusable])
    return sha256("\n".join(files).encode()).hexdigest()[:SHOWN] if files else ""


def in_production(versions: Sequence[BlobVersion]) -> dict[str, str]:
    """The version of each promoted model that is to be served, '' if all were retired."""
    histories: dict[str, list[ModelVersion]] = {}
    for one in versions:
        histories.setdefault(one.metadata.model_id, []).append(one.metadata)
    promoted = {model_id: words for model_id, words in histories.items() if any(one.promotion for one in words)}
    return {model_id: (history.in_production(words) or [""])[-1] for model_id, words in sorted(promoted.items())}


def not_served(scan: Scan, models: ModelStore) -> list[str]:
    """The models of which Redis serves another version than the one in production."""
    missing: list[str] = []
    for model_id, version in in_production(scan.versions).items():
        manifest = models.manifest(model_id)
        if (manifest.version if manifest else "") != version:
            missing.append(model_id)
    return missing


def _decide(
    context: dg.SensorEvaluationContext, state: str, missing: Sequence[str], now: datetime
) -> dg.SensorResult | dg.SkipReason:
    cursor = _read(context.cursor)
    if state != cursor.state:
        cursor = Cursor(state=state)
    if cursor.tries and not cursor.succeeded:
        cursor = replace(cursor, succeeded=_has_succeeded(context.instance, state))
    if (cursor.succeeded or not state) and not missing:
        return _skip(replace(cursor, tries=0), "Redis serves what is in production")
    if now - cursor.requested < _pause(cursor.tries):
        return _skip(cursor, f"waiting to try again: {', '.join(missing) or state}")
    if _is_live(context.instance):
        return _skip(cursor, "a publication is running")
    cursor = replace(cursor, tries=cursor.tries + 1, requested=now)
    request = dg.RunRequest(tags={STATE_TAG: state, "dagster/max_runtime": "1800"})
    return dg.SensorResult(run_requests=[request], cursor=msgspec.json.encode(cursor).decode())


def _has_succeeded(instance: dg.DagsterInstance, state: str) -> bool:
    """Whether a run of this state came to its end; asked only until one has, because tags are slow to look for."""
    done = dg.RunsFilter(tags={STATE_TAG: state}, statuses=[dg.DagsterRunStatus.SUCCESS])
    return bool(instance.get_run_records(done, limit=1))


def _is_live(instance: dg.DagsterInstance) -> bool:
    live = instance.get_run_records(dg.RunsFilter(statuses=list(LIVE)))
    return any(STATE_TAG in record.dagster_run.tags for record in live)


def _pause(tries: int) -> timedelta:
    return min(FIRST_PAUSE * 2 ** min(tries - 1, 10), LONGEST_PAUSE) if tries else timedelta(0)


def _skip(cursor: Cursor, reason: str) -> dg.SensorResult:
    return dg.SensorResult(skip_reason=reason, cursor=msgspec.json.encode(cursor).decode())


def _read(cursor: str | None) -> Cursor:
    try:
        return msgspec.json.decode(cursor or "", type=Cursor)
    except msgspec.MsgspecError:
        return Cursor()
