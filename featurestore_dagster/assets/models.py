"""Models: metadata files → the log, production artifacts → Redis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from featurestore.database.client import Database
from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView
from featurestore.errors import FeatureStoreError, SettingsError, TerminalError
from featurestore.landing.pending import Cause
from featurestore.models.gate import check
from featurestore.models.history import BlobVersion, Scan
from featurestore.models.log import Production, metadata_job, productions
from featurestore.models.metadata import ModelVersion
from featurestore.models.publish import ModelStore
from featurestore_dagster.names import MODELS, PLAIN, Keys
from featurestore_dagster.runs import failure
from featurestore_dagster.services import Blobs

SERVABLE = "servable"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the version that is to be served of a model."""

    model_id: str
    version: str
    done: str  # "published", "withdrawn", "refused", or "a newer one is published"
    reasons: tuple[str, ...] = ()


def model_assets(project: Project, keys: Keys = PLAIN) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """The container (outside), its metadata in the log, and what is served, in Redis."""
    container = dg.AssetSpec(
        keys.models("blobs"),
        group_name=MODELS,
        kinds={"azure"},
        description="One folder per model; a version is its metadata file, written last.",
    )
    return [container, _metadata_asset(keys), _production_asset(project, keys)]


def publish_models(
    project: Project, found: Sequence[Production], scan: Scan, blobs: Blobs, models: ModelStore
) -> list[Outcome]:
    """Serve what is to be served, if the gate lets it through; a refused version leaves the served one as it is."""
    return [_publish(project, one, scan.versions, blobs, models) for one in found]


def _metadata_asset(keys: Keys) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.models("metadata"),
        deps=[keys.models("blobs")],
        group_name=MODELS,
        kinds={"duckdb"},
        description="Every metadata file of the container, each once: the table model_metadata.",
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
            outcomes = publish_models(project, productions(database), blobs.scan(), blobs, models)
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


def _publish(
    project: Project, wanted: Production, versions: Sequence[BlobVersion], blobs: Blobs, models: ModelStore
) -> Outcome:
    if not wanted.version:
        withdrawn = models.withdraw(wanted.model_id, wanted.generation)
        return Outcome(wanted.model_id, "", "withdrawn" if withdrawn else "a newer one is published")
    version = next((one.metadata for one in versions if one.etag == wanted.etag), None)
    if version is None:
        reason = "its metadata file is not in the container any more, or cannot be used"
        return Outcome(wanted.model_id, wanted.version, "refused", (reason,))
    artifacts = _artifacts(version, blobs)
    refusals = check(version, artifacts, project)
    if refusals:
        return Outcome(wanted.model_id, wanted.version, "refused", tuple(str(refusal) for refusal in refusals))
    published = models.publish(version, artifacts, wanted.generation)
    return Outcome(wanted.model_id, wanted.version, "published" if published else "a newer one is published")


def _artifacts(version: ModelVersion, blobs: Blobs) -> Mapping[str, bytes]:
    """What can be downloaded; the gate says what is missing."""
    found: dict[str, bytes] = {}
    for artifact in version.artifacts:
        try:
            found[artifact.artifact_type] = blobs.download(artifact)
        except SettingsError:  # no artifact's fault
            raise
        except TerminalError:
            continue
    return found


def _metadata(outcomes: Sequence[Outcome]) -> dict[str, dg.MetadataValue]:
    metadata: dict[str, dg.MetadataValue] = {
        "published": dg.MetadataValue.int(sum(one.done == "published" for one in outcomes))
    }
    if outcomes:
        rows = [{"model": one.model_id, "version": one.version, "done": one.done} for one in outcomes]
        metadata["models"] = dg.MetadataValue.table([dg.TableRecord(row) for row in rows])
    return metadata


def _servable(key: dg.AssetKey, outcomes: Sequence[Outcome]) -> dg.AssetCheckResult:
    refused = [one for one in outcomes if one.done == "refused"]
    lines = [f"{one.model_id} {one.version}: {reason}" for one in refused for reason in one.reasons]
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=SERVABLE,
        passed=not refused,
        description="\n".join([*lines, "What was served before is served still."]) if refused else None,
        metadata={"refused": len(refused)},
    )
