"""Changes in the container of models → publication."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

import dagster as dg
import msgspec

from featurestore.errors import FeatureStoreError
from featurestore.landing.batch import utc_now
from featurestore_dagster.names import PLAIN, Keys
from featurestore_dagster.partitions import model_partitions
from featurestore_dagster.runs import LIVE
from featurestore_dagster.services import Blobs

if TYPE_CHECKING:
    from featurestore.models.history import BlobVersion, Scan
    from featurestore.models.publish import ModelStore

JOB = "publish_models"
STATE_TAG = "featurestore/models"  # <model id> <state>: what a run is to publish
FIRST_PAUSE = timedelta(minutes=1)
LONGEST_PAUSE = timedelta(hours=1)
SHOWN = 16  # characters of a state


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What was requested last for a model, and how often in vain."""

    state: str = ""
    tries: int = 0
    requested: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    succeeded: bool = False


NOTHING = Progress()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A model in the container."""

    model_id: str
    history: Sequence["BlobVersion"]
    state: str  # changes when a metadata file does

    @property
    def tag(self) -> str:
        """What a run that publishes this state carries."""
        return f"{self.model_id} {self.state}"

    @property
    def production(self) -> str | None:
        """The version that is to be served, '' if all were retired, None if none was ever promoted."""
        from featurestore.models.history import in_production

        words = [one.metadata for one in self.history]
        if not any(one.promotion for one in words):
            return None
        return (in_production(words) or [""])[-1]

    def observed(self, keys: Keys) -> dg.AssetObservation:
        """Its blobs, by ETag and digest."""
        last = self.history[-1] if self.history else None
        metadata: dict[str, str | int] = {"files": len(self.history), "production": self.production or "none"}
        if last is not None:
            metadata |= {"last_file": last.location, "etag": last.etag}
            metadata |= {one.azure_location: f"sha256 {one.sha256}" for one in last.metadata.artifacts}
        tags = {"dagster/data_version": self.state}
        return dg.AssetObservation(keys.models("blobs"), partition=self.model_id, metadata=metadata, tags=tags)


def sensor(
    open_blobs: Callable[[], Blobs],
    open_models: Callable[[], "ModelStore"],
    keys: Keys = PLAIN,
    *,
    clock: Callable[[], datetime] = utc_now,
) -> dg.SensorDefinition:
    """Requests a publication of a model when a metadata file of it appears or changes, and while Redis serves another
    version than the one in production: after a failed run, an emptied Redis, or a refusal, which is looked at again
    within the hour."""
    opened: list[Blobs] = []  # kept between ticks: it knows the files that it has read

    @dg.sensor(
        name=keys.name("models"),
        target=dg.define_asset_job(
            keys.name(JOB),
            selection=[keys.models("metadata"), keys.models("production")],
            description="Blobs → log and Redis.",
        ),
        minimum_interval_seconds=10,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Requests a publication when the container of models changes, or Redis serves something else.",
    )
    def models(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            if not opened:
                opened.append(open_blobs())
            seen = models_of(opened[0].scan())
            served = open_models()
            try:
                wrong = {one.model_id for one in seen if _is_not_served(one, served)}
            finally:
                served.close()
        except FeatureStoreError as error:
            return dg.SkipReason(str(error))
        return _decide(context, seen, wrong, keys, clock())

    return models


def models_of(scan: "Scan") -> list[Seen]:
    """Each model of the container, with its usable files in the order they count."""
    histories: dict[str, list[BlobVersion]] = {}
    files: dict[str, list[str]] = {}
    for one in scan.versions:
        histories.setdefault(one.metadata.model_id, []).append(one)
        files.setdefault(one.metadata.model_id, []).append(f"{one.location} {one.etag}")
    for one in scan.unusable:
        files.setdefault(one.location.partition("/")[0], []).append(one.location)
    return [
        Seen(model_id=model_id, history=histories.get(model_id, []), state=_digest(files[model_id]))
        for model_id in sorted(files)
    ]


def _digest(files: Sequence[str]) -> str:
    return sha256("\n".join(sorted(files)).encode()).hexdigest()[:SHOWN]


def _is_not_served(model: Seen, served: "ModelStore") -> bool:
    if model.production is None:
        return False
    manifest = served.manifest(model.model_id)
    return (manifest.version if manifest else "") != model.production


def _decide(
    context: dg.SensorEvaluationContext, seen: Sequence[Seen], wrong: Collection[str], keys: Keys, now: datetime
) -> dg.SensorResult:
    before, live = _read(context.cursor), _live(context.instance)
    known = {model.model_id: _known(before.get(model.model_id), model, context.instance) for model in seen}
    due = [model for model in seen if not known[model.model_id].succeeded or model.model_id in wrong]
    requested = [model for model in due if model.model_id not in live and _may_try(known[model.model_id], now)]
    after = {model.model_id: replace(known[model.model_id], tries=0) for model in seen} | {
        model.model_id: known[model.model_id] for model in due
    }
    for model in requested:
        after[model.model_id] = replace(after[model.model_id], tries=after[model.model_id].tries + 1, requested=now)
    return dg.SensorResult(
        run_requests=[_request(model) for model in requested],
        skip_reason=None if requested else _said(due),
        cursor=msgspec.json.encode(after).decode(),
        dynamic_partitions_requests=_additions(requested, keys),
        asset_events=[
            model.observed(keys) for model in seen if model.state != before.get(model.model_id, NOTHING).state
        ],
    )


def _known(before: Progress | None, model: Seen, instance: dg.DagsterInstance) -> Progress:
    """What came of the requests for this state of the model."""
    if before is None or before.state != model.state:
        return Progress(state=model.state)
    if before.tries and not before.succeeded:
        return replace(before, succeeded=_has_succeeded(instance, model))
    return before


def _may_try(known: Progress, now: datetime) -> bool:
    return now - known.requested >= _pause(known.tries)


def _request(model: Seen) -> dg.RunRequest:
    tags = {STATE_TAG: model.tag, "dagster/max_runtime": "1800"}
    return dg.RunRequest(partition_key=model.model_id, tags=tags)


def _additions(requested: Sequence[Seen], keys: Keys) -> list[dg.AddDynamicPartitionsRequest]:
    ids = [model.model_id for model in requested]
    return [model_partitions(keys).build_add_request(ids)] if ids else []


def _said(due: Sequence[Seen]) -> str:
    if due:
        names = ", ".join(model.model_id for model in due)
        return f"a publication is running, or waits to be tried again: {names}"
    return "Redis serves what is in production"


def _has_succeeded(instance: dg.DagsterInstance, model: Seen) -> bool:
    """Whether a run of this state came to its end; asked only until one has, because tags are slow to look for."""
    done = dg.RunsFilter(tags={STATE_TAG: model.tag}, statuses=[dg.DagsterRunStatus.SUCCESS])
    return bool(instance.get_run_records(done, limit=1))


def _live(instance: dg.DagsterInstance) -> set[str]:
    """The models that a live run publishes."""
    live = instance.get_run_records(dg.RunsFilter(statuses=list(LIVE)))
    return {record.dagster_run.tags.get(STATE_TAG, "").partition(" ")[0] for record in live}


def _pause(tries: int) -> timedelta:
    return min(FIRST_PAUSE * 2 ** min(tries - 1, 10), LONGEST_PAUSE) if tries else timedelta(0)


def _read(cursor: str | None) -> dict[str, Progress]:
    try:
        return msgspec.json.decode(cursor or "", type=dict[str, Progress])
    except msgspec.MsgspecError:
        return {}
