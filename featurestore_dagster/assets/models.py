"""Models: metadata files → the log, production artifacts → Redis; one partition per model."""

from collections.abc import Iterator

import dagster as dg

from featurestore.database.client import Database
from featurestore.definitions.model import Model
from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView
from featurestore.errors import FeatureStoreError
from featurestore.landing.pending import Cause
from featurestore.models.likeness import unlike_training
from featurestore.models.log import metadata_job, productions
from featurestore.models.metadata import ModelVersion
from featurestore.models.production import Outcome, bring, promoted
from featurestore_dagster.names import MODELS, PLAIN, Keys
from featurestore_dagster.partitions import model_partitions
from featurestore_dagster.resources import Given
from featurestore_dagster.runs import failure

SERVABLE, LIKE_TRAINING = "servable", "like_training"


def model_assets(project: Project, keys: Keys = PLAIN) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """The container and the training sets (outside), metadata in the log, and what is served, in Redis."""
    container = dg.AssetSpec(
        keys.models("blobs"),
        group_name=MODELS,
        kinds={"azure"},
        partitions_def=model_partitions(keys),
        description="One folder per model; a version is its metadata file, written last. Observed by the sensor.",
    )
    return [
        container,
        *(_training_set(model, project, keys) for model in project.models),
        _metadata_asset(keys),
        _production_asset(project, keys),
    ]


def _training_set(model: Model, project: Project, keys: Keys) -> dg.AssetSpec:
    """What a model is trained on: made by whoever trains it, observed by its receipt when a version is published."""
    views = {(one.view, one.version) for one in model.expected_features}
    return dg.AssetSpec(
        keys.trained_on(model.model_id),
        deps=sorted({keys.features(name) for name, _ in views}),
        group_name=MODELS,
        kinds={"table"},
        description=f"Training sets of {model.model_id}: {', '.join(one.name for one in model.expected_features)}.",
    )


def _metadata_asset(keys: Keys) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.models("metadata"),
        deps=[keys.models("blobs")],
        partitions_def=model_partitions(keys),
        group_name=MODELS,
        kinds={"duckdb"},
        description="What every metadata file of a model says, each once: the table model_metadata.",
        required_resource_keys=keys.resources("blobs", "database"),
    )
    def model_metadata(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
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

    return model_metadata


def _production_asset(project: Project, keys: Keys) -> dg.AssetsDefinition:
    key = keys.models("production")

    @dg.asset(
        key=key,
        deps=[keys.models("metadata"), *_upstream(project, keys)],
        partitions_def=model_partitions(keys),
        check_specs=[
            dg.AssetCheckSpec(SERVABLE, asset=key, description="The gate lets the version in production through."),
            dg.AssetCheckSpec(
                LIKE_TRAINING, asset=key, description="The newest values of its features are like the training set's."
            ),
        ],
        group_name=MODELS,
        kinds={"redis", "onnx"},
        description="The artifacts of the version in production, with its manifest: model:<id>:… and prod_models.",
        required_resource_keys=keys.resources("blobs", "database", "models"),
    )
    def production(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult | dg.AssetObservation]:
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

    return production


def _upstream(project: Project, keys: Keys) -> list[dg.AssetDep]:
    """The training sets, and the assets of the features that the declared models expect. Their partitions are hours;
    what a model needs of them is what there is now."""
    views = {(wanted.view, wanted.version) for model in project.models for wanted in model.expected_features}
    features = {
        keys.online(name) if isinstance(project.view(name, version), FeatureView) else keys.features(name)
        for name, version in views
    }
    training_sets = {keys.trained_on(model.model_id) for model in project.models}
    return [
        *(dg.AssetDep(key, partition_mapping=dg.LastPartitionMapping()) for key in sorted(features)),
        *(dg.AssetDep(key) for key in sorted(training_sets)),
    ]


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
