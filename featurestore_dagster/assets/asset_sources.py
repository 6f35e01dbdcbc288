"""Rows of other Dagster assets and of Parquet folders, landed like uploads."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import dagster as dg
from pydantic import Field

from featurestore.definitions.project import Project
from featurestore.definitions.source import AssetSource
from featurestore_dagster.assets.schema import sent_columns
from featurestore_dagster.names import PLAIN, SOURCES, Keys

RETRIES = dg.RetryPolicy(max_retries=3, delay=5, backoff=dg.Backoff.EXPONENTIAL)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One materialization of an asset, or one file of a folder; `upload_id` names it for ever."""

    upload_id: str
    partition: str | None = None  # of the asset
    file: Path | None = None


class Wanted(dg.Config):
    """Which arrival is landed; by default the last materialization, or every file that has not landed."""

    partition: str = Field(default="", description="Partition of the asset.")


def asset_sources(project: Project) -> list[AssetSource]:
    return [source for source in project.sources if isinstance(source, AssetSource)]


def asset_source_assets(project: Project, keys: Keys = PLAIN) -> list[dg.AssetsDefinition]:
    """One asset per AssetSource, which lands what its asset or folder has; doing it again lands nothing twice."""
    return [_asset(source, project, keys) for source in asset_sources(project)]


def _asset(source: AssetSource, project: Project, keys: Keys) -> dg.AssetsDefinition:
    what = f"the Parquet files of {source.path}" if source.path else f"the asset {source.asset_key}"

    @dg.asset(
        key=keys.source(source.name),
        deps=[dg.AssetKey.from_user_string(source.asset_key)] if source.asset_key else [],
        group_name=SOURCES,
        kinds={"parquet"},
        description=source.description or f"Lands the rows of {what}, each materialization or file once.",
        required_resource_keys=keys.resources("landing"),
        retry_policy=RETRIES,
        metadata={"dagster/column_schema": sent_columns(source)},
    )
    def land(context: dg.AssetExecutionContext, config: Wanted) -> dg.MaterializeResult:
        from featurestore_dagster.steps.asset_sources import land_arrivals

        return land_arrivals(context, project, source, config.partition, keys)

    return land


def files(source: AssetSource) -> Iterator[Arrival]:
    """The Parquet files of the folder. A file that is changed is another one; write it elsewhere and rename it."""
    for path in sorted(Path(source.path).glob("*.parquet")):
        with suppress(FileNotFoundError):  # taken away since the folder was listed
            yield Arrival(file_id(path, path.stat()), file=path)


def last_materialization(instance: dg.DagsterInstance, source: AssetSource, partition: str = "") -> Iterator[Arrival]:
    """Of the asset, or of a partition of it; nothing if it never was."""
    key = dg.AssetKey.from_user_string(source.asset_key)
    wanted = dg.AssetRecordsFilter(key, asset_partitions=[partition] if partition else None)
    for record in instance.fetch_materializations(wanted, limit=1).records:
        yield arrival_of(record)


def arrival_of(record: dg.EventLogRecord) -> Arrival:
    """A materialization, by what is the same in every process and never again: its run and its place in it."""
    entry = record.event_log_entry
    return Arrival(digest(f"{entry.run_id} {entry.timestamp} {record.partition_key}"), partition=record.partition_key)


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:32]


def file_id(path: Path, found: os.stat_result) -> str:
    """Of a file as it is now."""
    return digest(f"{path.name} {found.st_size} {found.st_mtime_ns}")
