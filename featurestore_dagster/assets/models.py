"""Models: metadata files → the log, production artifacts → Redis."""

from collections.abc import Sequence

import dagster as dg

from featurestore.database.client import Database
from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView
from featurestore.errors import FeatureStoreError
from featurestore.landing.pending import Cause
from featurestore.models.log import metadata_job, productions
from featurestore.models.production import Outcome, bring
from featurestore.models.publish import ModelStore
from featurestore_dagster.names import MODELS, PLAIN, Keys
from featurestore_dagster.runs import failure
from featurestore_dagster.services import Blobs

SERVABLE = "servable"


def model_assets(project: Project, keys: Keys = PLAIN) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """The container (outside), its metadata in the log, and what is served, in Redis."""
    container = dg.AssetSpec(
        keys.models("blobs"),
        group_name=MODELS,
        kinds={"azure"},
        description="One folder per model; a version is its metadata file, written last.",
    )
    return [container, _metadata_asset(keys), _production_asset(project, keys)]


def _metadata_asset(keys: Keys) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.models("metadata"),
        deps=[keys.models("blobs")],
        group_name=MODELS,
        kinds={"duckdb"},
        description="What every metadata file of the container says, each once: the table model_metadata.",
    )
    def model_metadata(blobs: dg.ResourceParam[Blobs], database: dg.ResourceParam[Database]) -> dg.MaterializeResult:
        try:
            scan = blobs.scan()
            skipped = database.append(metadata_job(scan.versions)).skipped if scan.versions else ()
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
        deps=[keys.models("metadata"), *_feature_keys(project, keys)],
        check_specs=[
            dg.AssetCheckSpec(SERVABLE, asset=key, description="The gate lets every version in production through.")
        ],
        group_name=MODELS,
        kinds={"redis", "onnx"},
        description="The artifacts of the versions in production, with their manifests: model:<id>:… and prod_models.",
    )
    def production(
        blobs: dg.ResourceParam[Blobs], database: dg.ResourceParam[Database], models: dg.ResourceParam[ModelStore]
    ) -> dg.MaterializeResult:
        try:
            scan = blobs.scan()
            outcomes = [bring(wanted, scan, blobs, models, project) for wanted in productions(database)]
        except FeatureStoreError as error:
            raise failure(error, Cause.INFRASTRUCTURE) from error
        return dg.MaterializeResult(metadata=_metadata(outcomes), check_results=[_servable(key, outcomes)])

    return production


def _feature_keys(project: Project, keys: Keys) -> list[dg.AssetKey]:
    """The assets of the features that the declared models expect."""
    views = {(wanted.view, wanted.version) for model in project.models for wanted in model.expected_features}
    found = {
        keys.online(name) if isinstance(project.view(name, version), FeatureView) else keys.features(name)
        for name, version in views
    }
    return sorted(found)


def _metadata(outcomes: Sequence[Outcome]) -> dict[str, dg.MetadataValue]:
    metadata: dict[str, dg.MetadataValue] = {
        "published": dg.MetadataValue.int(sum(one.published for one in outcomes)),
        "refused": dg.MetadataValue.int(sum(bool(one.refusals) for one in outcomes)),
    }
    if outcomes:
        rows = [{"model": one.model_id, "version": one.version or "none", "done": _done(one)} for one in outcomes]
        metadata["models"] = dg.MetadataValue.table([dg.TableRecord(row) for row in rows])
    return metadata


def _done(outcome: Outcome) -> str:
    if outcome.refusals:
        return "refused"
    return ("published" if outcome.version else "withdrawn") if outcome.published else "as before"


def _servable(key: dg.AssetKey, outcomes: Sequence[Outcome]) -> dg.AssetCheckResult:
    lines = [f"{one.model_id} {one.version}, {refusal}" for one in outcomes for refusal in one.refusals]
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=SERVABLE,
        passed=not lines,
        description="\n".join([*lines, "What was served before is served still."]) if lines else None,
    )
