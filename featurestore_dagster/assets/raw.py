"""What is outside, and the landed batches of each source."""

from collections.abc import Sequence
from datetime import datetime

import dagster as dg

from featurestore.definitions.project import Project
from featurestore.definitions.source import AssetSource, KafkaSource, Source
from featurestore.errors import TerminalError
from featurestore.landing.batch import Batch
from featurestore.landing.pending import Cause
from featurestore_dagster.assets.schema import landed_columns, landed_lineage, sent_columns
from featurestore_dagster.names import PLAIN, RAW, SOURCES, Keys
from featurestore_dagster.partitions import LANDING_HOUR, SINGLE_RUN, beta_features
from featurestore_dagster.resources import Given
from featurestore_dagster.runs import failure


def source_specs(project: Project, keys: Keys = PLAIN) -> list[dg.AssetSpec]:
    """The topics and uploads, which the ingest daemons read; for AssetSources see asset_sources.py."""
    return [
        dg.AssetSpec(
            keys.source(source.name),
            group_name=SOURCES,
            kinds={_kind(source)},
            description=source.description or _sentence(source),
            metadata={"dagster/column_schema": sent_columns(source)},
        )
        for source in project.sources
        if not isinstance(source, AssetSource)
    ]


def raw_assets(project: Project, keys: Keys = PLAIN) -> list[dg.AssetsDefinition]:
    """One asset per source: the batches that landed in the hour, every byte checked."""
    with beta_features():
        return [_raw_asset(source, keys) for source in project.sources]


def _raw_asset(source: Source, keys: Keys) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.raw(source.name),
        deps=[keys.source(source.name)],
        partitions_def=LANDING_HOUR,
        required_resource_keys=keys.resources("landing", "batches"),
        backfill_policy=SINGLE_RUN,
        group_name=RAW,
        kinds={"parquet"},
        description=f"Rows of {source.name} by the hour they landed, as they came; files that are never changed.",
        code_version=source.schema_version,
        metadata={
            "dagster/column_schema": landed_columns(source),
            "dagster/column_lineage": landed_lineage(source, keys),
        },
    )
    def landed_batches(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        given = Given(context, keys)
        selected = selected_batches(given, source, context.partition_time_window)
        try:
            rows = sum(given.landing.read(batch).num_rows for batch in selected)
        except TerminalError as error:
            raise failure(error, Cause.BATCH) from error
        except OSError as error:
            raise failure(error, Cause.INFRASTRUCTURE) from error
        seen = _summary(selected, rows)
        context.log_event(dg.AssetObservation(keys.source(source.name), metadata=seen))
        return dg.MaterializeResult(metadata=seen)

    return landed_batches


def selected_batches(given: Given, source: Source, window: dg.TimeWindow) -> list[Batch]:
    """The batches of `source` that this run is to work on."""
    try:
        return given.batches.of(given.landing, source.name, window)
    except TerminalError as error:
        raise failure(error, Cause.BATCH) from error


def _summary(batches: Sequence[Batch], rows: int) -> dict[str, dg.MetadataValue]:
    """What a run has read, as metadata: counts, and the times of the events."""
    values: dict[str, dg.MetadataValue] = {
        "dagster/row_count": dg.MetadataValue.int(rows),
        "batches": dg.MetadataValue.int(len(batches)),
        "dead_letters": dg.MetadataValue.int(sum(batch.dead_rows for batch in batches)),
        "bytes": dg.MetadataValue.int(sum(batch.bytes for batch in batches)),
    }
    delays = [batch.created_at - batch.max_event_timestamp for batch in batches if batch.max_event_timestamp]
    if delays:  # drawn over time: how long events take to arrive
        values["delay_s"] = dg.MetadataValue.float(max(delays).total_seconds())
    for name, times in (
        ("oldest_event", [batch.min_event_timestamp for batch in batches]),
        ("newest_event", [batch.max_event_timestamp for batch in batches]),
    ):
        known: list[datetime] = [time for time in times if time is not None]
        if known:
            values[name] = dg.MetadataValue.timestamp(min(known) if name == "oldest_event" else max(known))
    return values


def _kind(source: Source) -> str:
    return "kafka" if isinstance(source, KafkaSource) else "grpc"


def _sentence(source: Source) -> str:
    if isinstance(source, KafkaSource):
        return f"JSON records of the Kafka topic {source.topic_name}."
    return "Files sent to the upload service."
