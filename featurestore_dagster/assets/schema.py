"""Columns and their lineage, as Dagster shows them."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import dagster as dg

from featurestore.definitions.dtypes import DUCKDB
from featurestore.definitions.project import Project
from featurestore.definitions.reference import FeatureOf
from featurestore.definitions.source import Source
from featurestore.definitions.view import DerivedView, FeatureView, View
from featurestore.order import HEAD
from featurestore_dagster.names import Keys
from featurestore_dagster.partitions import beta_features

_TEXT = re.compile(r"'(?:[^']|'')*'")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEAD_COLUMNS = {
    "entity_id": dg.TableColumn("entity_id", "VARCHAR", "Canonical text of the key."),
    "event_timestamp": dg.TableColumn("event_timestamp", "TIMESTAMP", "When it happened (UTC)."),
    "created_at": dg.TableColumn("created_at", "TIMESTAMP", "When the platform durably knew it (UTC)."),
    "sequence": dg.TableColumn("sequence", "BIGINT", "Position inside the source."),
    "tie": dg.TableColumn("tie", "BIGINT", "Last resort of the order of rows."),
}


def owners(view: View) -> list[str] | None:
    """Dagster knows people by address and teams by prefix."""
    if not view.owner:
        return None
    return [view.owner if "@" in view.owner or view.owner.startswith("team:") else f"team:{view.owner}"]


def declared_in(view: View) -> dict[str, dg.CodeReferencesMetadataValue]:
    """The line that declares the view, for the page's "open in editor"."""
    file, _, line = view.declared_at.rpartition(":")
    if not line.isdigit():
        return {}
    with beta_features():
        reference = dg.LocalFileCodeReference(file_path=str(Path(file).absolute()), line_number=int(line))
        return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[reference])}


def sent_columns(source: Source) -> dg.TableSchema:
    """Columns of a record as it is sent."""
    times = [dg.TableColumn(sent, "TIMESTAMP", f"Becomes {landed}.") for sent, landed in source.times.items()]
    return dg.TableSchema([*times, *_declared(source)])


def landed_columns(source: Source) -> dg.TableSchema:
    """Columns of the landed files."""
    times = [_HEAD_COLUMNS[landed] for landed in source.times.values()]
    return dg.TableSchema([_HEAD_COLUMNS["sequence"], *times, *_declared(source)])


def landed_lineage(source: Source, keys: Keys) -> dg.TableColumnLineage:
    """Columns are as they were sent, but for the names of the times."""
    sent = {**{landed: name for name, landed in source.times.items()}, **{name: name for name in source.columns}}
    return dg.TableColumnLineage({name: [_dep(keys.source(source.name), one)] for name, one in sent.items()})


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


def derived_lineage(project: Project, view: DerivedView, keys: Keys) -> dg.TableColumnLineage:
    """Which features each derived one is computed from; what the request brings has no column."""
    inputs = {
        feature.name: feature_column(project, feature, keys)
        for one in view.inputs
        for feature in ([one] if isinstance(one, FeatureOf) else [one[f.name] for f in one.all_features])
    }
    read = {feature.name: _columns_in(feature.expression, list(inputs), opaque=False) for feature in view.features}
    # Once each: windows of one aggregation are made of one column.
    return dg.TableColumnLineage({name: list(dict.fromkeys(inputs[one] for one in of)) for name, of in read.items()})


def feature_column(project: Project, feature: FeatureOf, keys: Keys) -> dg.TableColumnDep:
    """Where a feature is stored, or computed."""
    view = project.view(feature.view, feature.version)
    column = view.column_of(feature.name) if isinstance(view, FeatureView) else feature.name
    return _dep(keys.features(view.name), column)


def copied_lineage(columns: dg.TableSchema, upstream: dg.AssetKey) -> dg.TableColumnLineage:
    """Columns that are the same upstream."""
    return dg.TableColumnLineage({one.name: [_dep(upstream, one.name)] for one in columns.columns})


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
    return dg.TableColumnLineage({f.name: [_dep(log, view.column_of(f.name))] for f in view.online_features})


def _deps(raw: dg.AssetKey, names: Iterable[str], view: FeatureView) -> list[dg.TableColumnDep]:
    landed = view.source.times
    return [_dep(raw, landed.get(name, name)) for name in names]


def _dep(upstream: dg.AssetKey, column: str) -> dg.TableColumnDep:
    return dg.TableColumnDep(asset_key=upstream, column_name=column)


def _declared(source: Source) -> list[dg.TableColumn]:
    return [
        dg.TableColumn(c.name, DUCKDB[c.dtype], constraints=dg.TableColumnConstraints(nullable=c.nullable))
        for c in source.columns.values()
    ]


def _columns_in(sql: str, declared: Sequence[str], *, opaque: bool) -> list[str]:
    words = {word.lower() for word in _WORD.findall(_TEXT.sub("''", sql))}
    named = [name for name in declared if name in words]
    return named or (list(declared) if opaque else [])
