"""What the steps of models do: metadata files → the log, production artifacts → Redis."""

from collections.abc import Iterator

import dagster as dg

from featurestore.database.client import Database
from featurestore.definitions.project import Project
from featurestore.errors import FeatureStoreError
from featurestore.landing.pending import Cause
from featurestore.models.likeness import unlike_training
from featurestore.models.log import metadata_job, productions
from featurestore.models.metadata import ModelVersion
from featurestore.models.production import Outcome, bring, promoted
from featurestore_dagster.assets.models import LIKE_TRAINING, SERVABLE
from featurestore_dagster.names import Keys
from featurestore_dagster.resources import Given
from featurestore_dagster.runs import failure


def log_metadata(context: dg.AssetExecutionContext, keys: Keys) -> dg.MaterializeResult:
    """Append what the metadata files of a model say, each once."""
    given = Given(context, keys)
    try:
        scan = given.blobs.scan(context.partition_key)
        skipped = given.database.append(metadata_job(scan.versions)).skipped if scan.versions else ()
    except FeatureStoreError as error:
        raise failure(error, Cause.INFRASTRUCTURE) from error
    metadata: dict[str, dg.MetadataValue] = {
        "dagster/row_count": dg.MetadataValue.int(len(scan.versions)),
        "new": dg.MetadataValue.int(skipped.count(False)),
    }
    if scan.unusable:
        lines = [f"- `{one.location}`: {one.reason}" for one in scan.unusable]
        metadata["unusable"] = dg.MetadataValue.md("\n".join(lines))
    return dg.MaterializeResult(metadata=metadata)


def publish(
    context: dg.AssetExecutionContext, project: Project, keys: Keys
) -> Iterator[dg.MaterializeResult | dg.AssetObservation]:
    """Bring what is in production to Redis, if the gate lets it through."""
    key = keys.models("production")
    given = Given(context, keys)
    model_id = context.partition_key
    try:
        scan = given.blobs.scan(model_id)
        wanted = next((one for one in productions(given.database) if one.model_id == model_id), None)
        outcome = bring(wanted, scan, given.blobs, given.models, project) if wanted else None
    except FeatureStoreError as error:
        raise failure(error, Cause.INFRASTRUCTURE) from error
    version = promoted(wanted, scan) if wanted and outcome and not outcome.refusals else None
    if version is not None:
        yield _observed(version, keys)
    checks = [_servable(key, outcome), _like_training(key, version, project, given.database)]
    yield dg.MaterializeResult(metadata=_metadata(outcome, version), check_results=checks)


def _observed(version: ModelVersion, keys: Keys) -> dg.AssetObservation:
    """The training set of a version, by its receipt."""
    receipt = version.receipt
    known = {name: str(receipt[name]) for name in ("rows", "sha256", "commit_seq", "known_at") if name in receipt}
    return dg.AssetObservation(
        keys.trained_on(version.model_id),
        metadata={"model_version": version.version, **known},
        tags={"dagster/data_version": known["sha256"]} if "sha256" in known else None,
    )


def _metadata(outcome: Outcome | None, version: ModelVersion | None) -> dict[str, dg.MetadataValue]:
    if outcome is None:
        return {"done": dg.MetadataValue.text("nothing: no version was ever promoted")}
    found: dict[str, dg.MetadataValue] = {
        "version": dg.MetadataValue.text(outcome.version or "none"),
        "done": dg.MetadataValue.text(_done(outcome)),
    }
    if version is not None:
        features = [{"index": one.index, "name": one.name, "type": one.type} for one in version.expected_features]
        found["expected_features"] = dg.MetadataValue.table([dg.TableRecord(one) for one in features])
        found["sha256"] = dg.MetadataValue.text(", ".join(one.sha256 for one in version.artifacts))
        found["promoted_by"] = dg.MetadataValue.text(version.actor)
    return found


def _done(outcome: Outcome) -> str:
    if outcome.refusals:
        return "refused"
    return ("published" if outcome.version else "withdrawn") if outcome.published else "as before"


def _servable(key: dg.AssetKey, outcome: Outcome | None) -> dg.AssetCheckResult:
    lines = [f"{outcome.model_id} {outcome.version}, {refusal}" for refusal in outcome.refusals] if outcome else []
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=SERVABLE,
        passed=not lines,
        description="\n".join([*lines, "What was served before is served still."]) if lines else None,
    )


def _like_training(
    key: dg.AssetKey, version: ModelVersion | None, project: Project, database: Database
) -> dg.AssetCheckResult:
    """A warning only: that the world has changed is no reason to serve an older model."""
    try:
        lines = unlike_training(version, project, database) if version is not None else []
    except FeatureStoreError as error:
        lines = [f"not compared: {error}"]
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=LIKE_TRAINING,
        passed=not lines,
        severity=dg.AssetCheckSeverity.WARN,
        description="\n".join(lines) or None,
    )
