"""Models: metadata files → the log, production artifacts → Redis; one partition per model."""

from collections.abc import Iterator

import dagster as dg

from featurestore.definitions.model import Model
from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView
from featurestore_dagster.names import MODELS, PLAIN, Keys
from featurestore_dagster.partitions import model_partitions

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
        from featurestore_dagster.steps.models import log_metadata

        return log_metadata(context, keys)

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
        from featurestore_dagster.steps.models import publish

        yield from publish(context, project, keys)

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
