"""What the step of a feature view does: landed batches → the log, then the online store."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import dagster as dg
import pyarrow as pa

from featurestore.apply import Applied, apply_batches
from featurestore.database.jobs import SchemaJob
from featurestore.definitions.view import FeatureView
from featurestore.errors import DefinitionError, FeatureStoreError, TerminalError, TransientError
from featurestore.landing.batch import Batch
from featurestore.landing.pending import Cause
from featurestore.offline.tables import view_table
from featurestore_dagster.assets.raw import selected_batches
from featurestore_dagster.names import EXPECTATIONS, Keys
from featurestore_dagster.plots import Distributions
from featurestore_dagster.resources import Given
from featurestore_dagster.runs import failure


def apply_versions(
    context: dg.AssetExecutionContext, versions: Sequence[FeatureView], keys: Keys
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    """Apply the run's batches to every declared version of a view, the newest last."""
    newest, given = versions[-1], Given(context, keys)
    log_key, online_key = keys.features(newest.name), keys.online(newest.name)
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
        check_name=EXPECTATIONS,
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
