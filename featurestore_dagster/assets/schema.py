"""Columns and their lineage, as Dagster shows them."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import dagster as dg

from featurestore.definitions.dtypes import DUCKDB
from featurestore.definitions.source import Source
from featurestore.definitions.view import DerivedView, FeatureView
from featurestore.order import HEAD
from featurestore_dagster.names import Keys

_TEXT = re.compile(r"'(?:[^']|'')*'")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEAD_COLUMNS = {
    "entity_id": dg.TableColumn("entity_id", "VARCHAR", "Canonical text of the key."),
    "event_timestamp": dg.TableColumn("event_timestamp", "TIMESTAMP", "When it happened (UTC)."),
    "created_at": dg.TableColumn("created_at", "TIMESTAMP", "When the platform durably knew it (UTC)."),
    "sequence": dg.TableColumn("sequence", "BIGINT", "Position inside the source."),
    "tie": dg.TableColumn("tie", "BIGINT", "Last resort of the order of rows."),
}


def declared_in(view: FeatureView) -> dict[str, dg.CodeReferencesMetadataValue]:
    """The line that declares the view, for the page's "open in editor"."""
    file, _, line = view.declared_at.rpartition(":")
    if not line.isdigit():
        return {}
    reference = dg.LocalFileCodeReference(file_path=str(Path(file).absolute()), line_number=int(line))
    return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[reference])}


def landed_columns(source: Source) -> dg.TableSchema:
    """Columns of the landed files."""
    head = [_HEAD_COLUMNS["sequence"], _HEAD_COLUMNS["event_timestamp"]]
    declared = [
        dg.TableColumn(c.name, DUCKDB[c.dtype], constraints=dg.TableColumnConstraints(nullable=c.nullable))
        for c in source.columns.values()
    ]
    return dg.TableSchema([*head, *declared])


def log_columns(view: FeatureView) -> dg.TableSchema:
    """Columns of the view's log table."""
    texts = {feature.name: feature.description for feature in view.row_features}
    typed = [
        dg.TableColumn(column.name, DUCKDB[column.dtype], texts.get(column.name) or column.sql)
        for column in view.columns
    ]
    return dg.TableSchema([*(_HEAD_COLUMNS[name] for name in HEAD), *typed])


def online_columns(view: FeatureView) -> dg.TableSchema:
    """The features that Redis holds."""
    return dg.TableSchema(
        [dg.TableColumn(f.name, DUCKDB[f.dtype], f.description or f.expression) for f in view.online_features]
    )


def derived_columns(view: DerivedView) -> dg.TableSchema:
    return dg.TableSchema(
        [dg.TableColumn(f.name, DUCKDB[f.dtype], f.description or f.expression) for f in view.features]
    )


def log_lineage(view: FeatureView, keys: Keys) -> dg.TableColumnLineage:
    """Which columns of the landed rows each column of the log is made of.

    A transform is opaque: whatever an expression takes from it may come from any column of the source.
    """
    raw, declared = keys.raw(view.source.name), [*view.source.times, *view.source.schema]
    made = {"entity_id": list(view.entity.key_columns), "event_timestamp": ["event_timestamp"]}
    for column in view.columns:
        made[column.name] = _columns_in(column.sql, declared, opaque=view.transform is not None)
    return dg.TableColumnLineage({name: _deps(raw, names, view) for name, names in made.items()})


def online_lineage(view: FeatureView, keys: Keys) -> dg.TableColumnLineage:
    log = keys.features(view.name)
    return dg.TableColumnLineage(
        {f.name: [dg.TableColumnDep(asset_key=log, column_name=view.column_of(f.name))] for f in view.online_features}
    )


def _deps(raw: dg.AssetKey, names: Iterable[str], view: FeatureView) -> list[dg.TableColumnDep]:
    landed = view.source.times
    return [dg.TableColumnDep(asset_key=raw, column_name=landed.get(name, name)) for name in names]


def _columns_in(sql: str, declared: Sequence[str], *, opaque: bool) -> list[str]:
    words = {word.lower() for word in _WORD.findall(_TEXT.sub("''", sql))}
    named = [name for name in declared if name in words]
    return named or (list(declared) if opaque else [])
