"""Model metadata in the log: from metadata files to rows, and back to which version is in production."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import msgspec
import pyarrow as pa

from featurestore.database.client import Database
from featurestore.database.jobs import AppendJob, LedgerLine
from featurestore.database.tables import ARROW_TYPES, MODEL_METADATA, QUARANTINE
from featurestore.models.history import BlobVersion
from featurestore.models.metadata import metadata_table

_LINE = pa.field("line", pa.int32())
_QUARANTINED = pa.schema([*(pa.field(name, ARROW_TYPES[dtype]) for name, dtype in QUARANTINE.items()), _LINE])
_PINS = "SELECT model_id, any_value(view_versions) AS view_versions FROM model_metadata WHERE promoted GROUP BY ALL"
_PRODUCTIONS = files("featurestore.models").joinpath("productions.sql").read_text()


@dataclass(frozen=True, slots=True)
class Production:
    """Which version of a model is to be served."""

    model_id: str
    version: str  # empty: none, all were retired
    etag: str  # of the metadata file that says so
    generation: int  # commit_seq of the last word about the model


def productions(database: Database) -> list[Production]:
    """Every model that was ever promoted. Raises as Database.query does."""
    return database.query(_PRODUCTIONS, into=Production)


def production_pins(database: Database) -> dict[str, dict[str, int]]:
    """The version of each view that the models in production were trained on, by model."""
    found = database.query(_PINS, into=_Pins)
    return {one.model_id: msgspec.json.decode(one.view_versions or "{}", type=dict[str, int]) for one in found}


def metadata_job(versions: Sequence[BlobVersion]) -> AppendJob:
    """Append what these metadata files (at least one) say, each once for ever: a file is known by its name and ETag.

    They are logged in the order given, so give them as ModelBlobs.versions does.
    """
    tables = [metadata_table(one.metadata.rows(one.etag)) for one in versions]
    lines = tuple(
        LedgerLine(
            batch_id=f"{one.location}#{one.etag}",
            target=MODEL_METADATA,
            code_digest="",
            rows_in=table.num_rows,
            logged=table.num_rows,
            filtered=0,
            quarantined=0,
        )
        for one, table in zip(versions, tables, strict=True)
    )
    numbered = [
        table.append_column(_LINE, pa.repeat(pa.scalar(line, pa.int32()), table.num_rows))
        for line, table in enumerate(tables)
    ]
    return AppendJob(
        job_id=f"{MODEL_METADATA} {lines[0].batch_id} … {lines[-1].batch_id}",
        target=MODEL_METADATA,
        lines=lines,
        rows=pa.concat_tables(numbered).combine_chunks(),
        quarantined=_QUARANTINED.empty_table(),
    )


@dataclass(frozen=True, slots=True)
class _Pins:
    model_id: str
    view_versions: str | None
