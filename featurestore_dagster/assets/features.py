"""Each feature view: one step writes the log, then the online store."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

import dagster as dg

from featurestore.definitions.project import Project
from featurestore.definitions.reference import FeatureOf
from featurestore.definitions.source import KafkaSource
from featurestore.definitions.view import DerivedView, FeatureView, View
from featurestore_dagster.assets.schema import (
    declared_in,
    derived_columns,
    derived_lineage,
    log_columns,
    log_lineage,
    online_columns,
    online_lineage,
    owners,
)
from featurestore_dagster.names import EXPECTATIONS, FEATURES, ONLINE, PLAIN, TRANSFORM_POOL, Keys
from featurestore_dagster.partitions import LANDING_HOUR, SINGLE_RUN, beta_features

# A stream that is silent for long is broken; files may come once a day.
FRESH_STREAM = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=6), warn_window=timedelta(hours=1))
FRESH_FILES = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=7), warn_window=timedelta(days=2))


def feature_assets(project: Project, keys: Keys = PLAIN) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """One step per view name, for all its declared versions; a derived view is a node without a step."""
    versions: dict[str, list[FeatureView]] = {}
    for view in project.feature_views:
        versions.setdefault(view.name, []).append(view)
    with beta_features():
        steps = [_feature_asset(sorted(views, key=lambda view: view.version), keys) for views in versions.values()]
    return [*steps, *(_derived_spec(project, view, keys) for view in project.derived_views)]


def _feature_asset(versions: Sequence[FeatureView], keys: Keys) -> dg.AssetsDefinition:
    newest = versions[-1]

    @dg.multi_asset(
        name=keys.name(f"apply_{newest.name}"),
        specs=_specs(versions, keys),
        check_specs=[
            dg.AssetCheckSpec(
                EXPECTATIONS,
                asset=keys.features(newest.name),
                description="No row of the run missed an expectation of the view.",
            )
        ],
        backfill_policy=SINGLE_RUN,
        required_resource_keys=keys.resources("landing", "database", "online", "batches"),
        pool=TRANSFORM_POOL,
        can_subset=True,
    )
    def apply_view(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        from featurestore_dagster.steps.features import apply_versions

        yield from apply_versions(context, versions, keys)

    return apply_view


def _specs(versions: Sequence[FeatureView], keys: Keys) -> list[dg.AssetSpec]:
    newest = versions[-1]
    fresh = FRESH_STREAM if isinstance(newest.source, KafkaSource) else FRESH_FILES
    declared = declared_in(newest)
    code_version = "+".join(view.digest for view in versions)
    specs = [
        dg.AssetSpec(
            keys.features(newest.name),
            deps=sorted({keys.raw(view.source.name) for view in versions}),
            group_name=FEATURES,
            kinds={"duckdb"},
            partitions_def=LANDING_HOUR,
            description=newest.description
            or f"Of each {newest.entity.name}, made of {newest.source.name}: {_listed(newest)}.",
            owners=owners(newest),
            code_version=code_version,
            freshness_policy=fresh,
            metadata={
                # Of the declaration, not of a run: it would be a third of what a run leaves behind.
                **declared,
                "dagster/column_schema": log_columns(newest),
                "dagster/column_lineage": log_lineage(newest, keys),
                "dagster/table_name": f"features.log.{newest.name}_v{newest.version}",
                "versions": ", ".join(view.target for view in versions),
            },
        )
    ]
    if any(view.online_features for view in versions):
        specs.append(
            dg.AssetSpec(
                keys.online(newest.name),
                deps=[keys.features(newest.name)],
                group_name=ONLINE,
                kinds={"redis"},
                partitions_def=LANDING_HOUR,
                description=f"The online features of {newest.name} per {newest.entity.name}: newest values, windows.",
                owners=owners(newest),
                code_version=code_version,
                freshness_policy=fresh,
                metadata={
                    **declared,
                    "dagster/column_schema": online_columns(newest),
                    "dagster/column_lineage": online_lineage(newest, keys),
                },
            )
        )
    return specs


def _listed(view: View) -> str:
    return ", ".join(feature.name for feature in view.all_features)


def _derived_spec(project: Project, view: DerivedView, keys: Keys) -> dg.AssetSpec:
    inputs = {one.view if isinstance(one, FeatureOf) else one.name for one in view.inputs}
    return dg.AssetSpec(
        keys.features(view.name),
        deps=[keys.features(name) for name in sorted(inputs)],
        group_name=FEATURES,
        kinds={"sql"},
        description=view.description
        or f"Computed from features whenever they are read, never stored: {_listed(view)}.",
        owners=owners(view),
        code_version=str(view.version),
        metadata={
            **declared_in(view),
            "dagster/column_schema": derived_columns(view),
            "dagster/column_lineage": derived_lineage(project, view, keys),
        },
    )
