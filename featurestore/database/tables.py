"""The tables of the log: names, types and DDL, made from views."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from featurestore.database.jobs import FeatureColumn, SchemaJob, ViewTable
from featurestore.definitions.dtypes import DUCKDB
from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView
from featurestore.order import HEAD

HEAD_TYPES: Mapping[str, str] = dict(zip(HEAD, ("VARCHAR", "TIMESTAMP", "TIMESTAMP", "BIGINT", "BIGINT"), strict=True))
ARROW_TYPES: Mapping[str, pa.DataType] = {
    "VARCHAR": pa.string(),
    "BIGINT": pa.int64(),
    "DOUBLE": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "TIMESTAMP": pa.timestamp("us"),
}

# Columns of the quarantined rows of an append job (`line` beside them).
QUARANTINE: Mapping[str, str] = {
    "sequence": "BIGINT",
    "event_timestamp": "TIMESTAMP",
    "reason": "VARCHAR",
    "row": "VARCHAR",
}
QUARANTINED_BY = ("batch_id", "target")  # in front of them, in the table

MODEL_METADATA = "model_metadata@v1"
_MODEL_COLUMNS: Mapping[str, str] = {
    "model_id": "VARCHAR",
    "artifact_type": "VARCHAR",
    "version": "VARCHAR",
    "trained_date": "VARCHAR",
    "status": "VARCHAR",
    "azure_location": "VARCHAR",
    "expected_features": "VARCHAR",
    "view_versions": "VARCHAR",
    "sha256": "VARCHAR",
    "size_bytes": "BIGINT",
    "format": "VARCHAR",
    "etag": "VARCHAR",
    "actor": "VARCHAR",
    "receipt": "VARCHAR",
    "recorded_at": "TIMESTAMP",
}
_MODEL_REQUIRED = frozenset({"model_id", "artifact_type", "version", "status", "recorded_at"})


@dataclass(frozen=True, slots=True)
class Target:
    """What an append to a target must look like. Without a digest, any code may append."""

    name: str
    relation: str
    columns: Mapping[str, str]
    required: frozenset[str]
    stored: tuple[str, ...]  # the table's own columns, in their order
    digest: str = ""


SYSTEM_TARGETS: Mapping[str, Target] = {
    MODEL_METADATA: Target(
        MODEL_METADATA, "model_metadata_log", _MODEL_COLUMNS, _MODEL_REQUIRED, ("commit_seq", *_MODEL_COLUMNS)
    ),
}


def view_table(view: FeatureView) -> ViewTable:
    """The log table of a view's version."""
    return ViewTable(
        target=view.target,
        view=view.name,
        version=view.version,
        entity=view.entity.name,
        source=view.source.name,
        digest=view.digest,
        columns=tuple((column.name, DUCKDB[column.dtype]) for column in view.columns),
        features=tuple(FeatureColumn(one.name, DUCKDB[one.dtype], one.online) for one in view.row_features),
    )


def schema_job(project: Project) -> SchemaJob:
    """The job that makes every table the project needs."""
    return SchemaJob("schema", tuple(view_table(view) for view in project.feature_views))


def target_of(table: ViewTable) -> Target:
    names = tuple(name for name, _ in table.columns)
    return Target(
        table.target,
        table.hot_relation,
        {**HEAD_TYPES, **dict(table.columns)},
        frozenset(HEAD_TYPES),
        (*HEAD_TYPES, "commit_seq", *names),
        table.digest,
    )


def create_hot_table(table: ViewTable) -> str:
    """DDL of the table that appends go to: no key and no index, which would cost most of the write speed."""
    head = {**HEAD_TYPES, "commit_seq": "BIGINT"}
    columns = [f"{name} {dtype} NOT NULL" for name, dtype in head.items()]
    columns += [f'"{name}" {dtype}' for name, dtype in table.columns]
    return f"CREATE TABLE {table.hot_relation} ({', '.join(columns)})"


def create_log_view(table: ViewTable, paths: Sequence[str], *, hides: bool = False) -> str:
    """DDL of the log: the hot rows and those of the lake's files, but for `hidden_rows`, where it `hides` some.

    The files are listed, never found by a pattern: a pattern counts rows twice between the moment a file is there and
    the moment its rows leave the table.
    """
    columns = ", ".join([*HEAD, "commit_seq", *(f'"{name}"' for name, _ in table.columns)])
    select = f"SELECT {columns} FROM {table.hot_relation}"
    if paths:
        files = visible(read_files(paths), table.target) if hides else read_files(paths)
        select += f" UNION ALL SELECT {columns} FROM {files}"
    return f"CREATE OR REPLACE VIEW {table.relation} AS {select}"


def read_files(paths: Sequence[str], *, union: bool = False) -> str:
    """The rows of Parquet files, as a table function; `union`: of files that may have different columns."""
    listed = ", ".join(quoted(path) for path in paths)
    return f"read_parquet([{listed}], hive_partitioning = false{', union_by_name = true' if union else ''})"


def visible(files: str, target: str) -> str:
    """The rows of a log's files of the lake that were not erased."""
    hidden = f"SELECT commit_seq, sequence FROM hidden_rows WHERE target = {quoted(target)}"
    return f"(SELECT * FROM {files} ANTI JOIN ({hidden}) USING (commit_seq, sequence))"


def quoted(text: str) -> str:
    """A text literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def create_features_view(tables: Iterable[ViewTable]) -> str:
    """DDL of the long relation over the active log tables; DuckDB reads only the branches that a query needs."""
    branches = [_branch(table, feature) for table in tables for feature in table.features]
    return f"CREATE OR REPLACE VIEW features AS {' UNION ALL '.join(branches or [_NO_FEATURES])}"


_VALUES = {"value_int": "BIGINT", "value_text": "VARCHAR", "value_bool": "BOOLEAN"}


def _branch(table: ViewTable, feature: FeatureColumn) -> str:
    column = f'"{feature.name}"'
    value = "CAST(NULL AS DOUBLE)" if feature.dtype == "VARCHAR" else f"CAST({column} AS DOUBLE)"
    typed = ", ".join(
        f"{column if dtype == feature.dtype else f'CAST(NULL AS {dtype})'} AS {name}" for name, dtype in _VALUES.items()
    )
    return (
        f"SELECT entity_id, '{feature.name}' AS feature_name, {value} AS value, {typed}, event_timestamp, created_at, "
        f"sequence, {table.version} AS view_version FROM {table.relation}"
    )


_NO_FEATURES = (
    "SELECT CAST(NULL AS VARCHAR) AS entity_id, CAST(NULL AS VARCHAR) AS feature_name, CAST(NULL AS DOUBLE) AS value, "
    "CAST(NULL AS BIGINT) AS value_int, CAST(NULL AS VARCHAR) AS value_text, CAST(NULL AS BOOLEAN) AS value_bool, "
    "CAST(NULL AS TIMESTAMP) AS event_timestamp, CAST(NULL AS TIMESTAMP) AS created_at, CAST(NULL AS BIGINT) AS "
    "sequence, CAST(NULL AS INTEGER) AS view_version WHERE false"
)
