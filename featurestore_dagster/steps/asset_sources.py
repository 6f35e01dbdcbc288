"""What the step of an AssetSource does: rows of an asset, or of files, are landed like uploads."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.definitions.project import Project
from featurestore.definitions.source import AssetSource
from featurestore.errors import TerminalError
from featurestore.landing.columns import Door
from featurestore.landing.pending import Cause
from featurestore.landing.tables import land_table
from featurestore.landing.uploads import Manifest
from featurestore_dagster.assets.asset_sources import RETRIES, Arrival, file_id, files, last_materialization
from featurestore_dagster.names import Keys
from featurestore_dagster.resources import Given
from featurestore_dagster.runs import failure


def land_arrivals(
    context: dg.AssetExecutionContext, project: Project, source: AssetSource, partition: str, keys: Keys
) -> dg.MaterializeResult:
    """Land the last materialization of the asset, or every file of the folder that has not landed."""
    landing = Given(context, keys).landing
    door = Door.of(source, project)
    arrivals = files(source) if source.path else last_materialization(context.instance, source, partition)
    landed: list[Manifest] = []
    refused: TerminalError | None = None
    for one in arrivals:
        if landing.open_upload(source.name, one.upload_id).manifest() is None:
            try:
                landed.append(land_table(landing, door, one.upload_id, _rows(context, source, one)))
            except TerminalError as error:  # of one file: the others are landed
                refused = refused or error
    if refused:  # the same rows would be refused again
        raise failure(refused, Cause.BATCH) from refused
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": sum(one.rows for one in landed),
            "uploads": len(landed),
            "dead_letters": sum(one.dead_rows for one in landed),
        }
    )


def _file_rows(path: Path, upload_id: str) -> pa.Table:
    """The rows of this very file: one that was replaced meanwhile, or written to, is another one."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        try:
            rows = pq.ParquetFile(file).read()
        except pa.ArrowInvalid as error:
            raise TerminalError(f"{path} is no Parquet file; write it elsewhere, then rename it: {error}") from error
        if file_id(path, os.fstat(file.fileno())) == upload_id:
            return rows
    raise dg.RetryRequested(max_retries=RETRIES.max_retries)


def _rows(context: dg.AssetExecutionContext, source: AssetSource, arrival: Arrival) -> pa.Table:
    if arrival.file is not None:
        return _file_rows(arrival.file, arrival.upload_id)
    value = context.load_asset_value(
        dg.AssetKey.from_user_string(source.asset_key), partition_key=arrival.partition or None
    )
    if [one.upload_id for one in last_materialization(context.instance, source, arrival.partition or "")] != [
        arrival.upload_id
    ]:
        raise dg.RetryRequested(max_retries=RETRIES.max_retries)  # it was written again meanwhile
    if not hasattr(value, "__arrow_c_stream__"):
        raise TerminalError(
            f"source {source.name!r}: asset {source.asset_key} gives a {type(value).__name__}; give an Arrow table, a "
            "polars or pandas frame, or write Parquet files and name their folder (path=…)"
        )
    return pa.table(cast(Any, value))
