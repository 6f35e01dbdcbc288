"""Each feature view: one step writes the log, then the online store."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta

import dagster as dg
import pyarrow as pa

from featurestore.apply import Applied, apply_batches
from featurestore.database.jobs import SchemaJob
from featurestore.definitions.project import Project
from featurestore.definitions.reference import FeatureOf
from featurestore.definitions.source import KafkaSource
from featurestore.definitions.view import DerivedView, FeatureView, View
from featurestore.errors import DefinitionError, FeatureStoreError, TerminalError, TransientError
from featurestore.landing.batch import Batch
from featurestore.landing.pending import Cause
from featurestore.offline.tables import view_table
from featurestore_dagster.assets.raw import selected_batches
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
from featurestore_dagster.names import FEATURES, ONLINE, PLAIN, TRANSFORM_POOL, Keys
from featurestore_dagster.partitions import LANDING_HOUR, SINGLE_RUN, beta_features
from featurestore_dagster.plots import Distributions
from featurestore_dagster.resources import Given
from featurestore_dagster.runs import failure

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
    log_key, online_key = keys.features(newest.name), keys.online(newest.name)

    @dg.multi_asset(
        name=keys.name(f"apply_{newest.name}"),
        specs=_specs(versions, keys),
        check_specs=[
            dg.AssetCheckSpec(
                "expectations", asset=log_key, description="No row of the run missed an expectation of the view."
            )
        ],
        partitions_def=LANDING_HOUR,
        backfill_policy=SINGLE_RUN,
        required_resource_keys=keys.resources("landing", "database", "online", "batches"),
        pool=TRANSFORM_POOL,
        can_subset=True,
    )
    def apply_view(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        given = Given(context, keys)
        applied: dict[str, Applied] = {}
        seen = Distributions(feature.name for feature in newest.row_features)
        for view in versions:
            selected = selected_batches(given, view.source, context.partition_time_window)
            look = seen.add if view is newest else None
            done = applied[view.target] = _apply(view, selected, given, look)
            for job_id in done.job_ids:  # under which the database service's log names the batches
                context.log.info("%s: job_id=%s", view.target, job_id)
        total = sum(applied.values(), Applied())
        if log_key in context.selected_asset_keys:
            yield dg.MaterializeResult(asset_key=log_key, metadata=_log_metadata(total, applied) | seen.metadata())
        if online_key in context.selected_asset_keys:
            counts = {"written": total.written, "stale": total.stale, "tiles": total.tiles}
            yield dg.MaterializeResult(asset_key=online_key, metadata=counts)
        if context.selected_asset_check_keys:
            yield _expectations(log_key, total)

    return apply_view


def _specs(versions: Sequence[FeatureView], keys: Keys) -> list[dg.AssetSpec]:
    newest = versions[-1]
    fresh = FRESH_STREAM if isinstance(newest.source, KafkaSource) else FRESH_FILES
    code_version = "+".join(view.digest for view in versions)
    specs = [
        dg.AssetSpec(
            keys.features(newest.name),
            deps=sorted({keys.raw(view.source.name) for view in versions}),
            group_name=FEATURES,
            kinds={"duckdb"},
            description=newest.description
            or f"Of each {newest.entity.name}, made of {newest.source.name}: {_listed(newest)}.",
            owners=owners(newest),
            code_version=code_version,
            freshness_policy=fresh,
            metadata={
                # Of the declaration, not of a run: it would be a third of what a run leaves behind.
                **declared_in(newest),
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
                description=f"The online features of {newest.name} per {newest.entity.name}: newest values, windows.",
                owners=owners(newest),
                code_version=code_version,
                freshness_policy=fresh,
                metadata={
                    **declared_in(newest),
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


def _apply(
    view: FeatureView,
    batches: Sequence[Batch],
    given: Given,
    look: Callable[[pa.Table], None] | None,
) -> Applied:
    """Apply the batches; an error says whether it will come again with the same rows."""
    try:
        given.database.ensure(SchemaJob(f"ensure {view.target}", (view_table(view),)))
    except FeatureStoreError as error:  # changed code or no service: not the rows
        raise failure(error, Cause.INFRASTRUCTURE) from error
    try:
        return apply_batches(view, batches, given.landing, given.database, given.online, look)
    except DefinitionError as error:
        raise failure(error, Cause.INFRASTRUCTURE) from error  # of the code, not of the batch
    except TerminalError as error:
        raise failure(error, Cause.BATCH) from error
    except (TransientError, OSError, MemoryError) as error:
        raise failure(error, Cause.INFRASTRUCTURE) from error


def _log_metadata(total: Applied, applied: Mapping[str, Applied]) -> dict[str, dg.MetadataValue]:
    metadata: dict[str, dg.MetadataValue] = {
        "dagster/row_count": dg.MetadataValue.int(total.logged),
        "rows_in": dg.MetadataValue.int(total.rows_in),
        "filtered": dg.MetadataValue.int(total.filtered),
        "quarantined": dg.MetadataValue.int(total.quarantined),
        **({"erased": dg.MetadataValue.int(total.erased)} if total.erased else {}),
        "new_batches": dg.MetadataValue.int(total.new_batches),
        "skipped_batches": dg.MetadataValue.int(total.skipped_batches),
    }
    if total.newest_event_timestamp is not None:
        metadata["newest_event"] = dg.MetadataValue.timestamp(total.newest_event_timestamp)
    if len(applied) > 1:
        metadata["by_version"] = dg.MetadataValue.table(
            [
                dg.TableRecord(
                    {"version": target, "rows_in": one.rows_in, "logged": one.logged, "new_batches": one.new_batches}
                )
                for target, one in applied.items()
            ]
        )
    return metadata


def _expectations(log_key: dg.AssetKey, total: Applied) -> dg.AssetCheckResult:
    missed = total.quarantined + sum(total.warnings.values())
    return dg.AssetCheckResult(
        asset_key=log_key,
        check_name="expectations",
        passed=not missed,
        severity=dg.AssetCheckSeverity.WARN,
        description="\n".join(_missed(total)) if missed else None,
        metadata={
            "quarantined": total.quarantined,
            **{f"warned: {sql}": count for sql, count in total.warnings.items()},
        },
    )


def _missed(total: Applied) -> Iterator[str]:
    """What is wrong, and what to do."""
    if total.quarantined:
        yield f"{total.quarantined} rows are kept apart: `SELECT reason, count(*) FROM quarantined_rows GROUP BY 1`."
    for sql, count in total.warnings.items():
        yield f"{count} rows are logged although not `{sql}`."
    yield "Mend the producer; or, where the rows are right, give the view a version with another expectation."
