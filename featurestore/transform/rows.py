"""Source rows → feature rows: pure, the same for live runs, backfills and tests."""

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb
import msgspec
import numpy as np
import pyarrow as pa

from featurestore.definitions.listed import shown
from featurestore.definitions.view import FeatureView
from featurestore.errors import TerminalError
from featurestore.landing.batch import Batch, to_micros
from featurestore.landing.schema import TIMESTAMP, landed_schema
from featurestore.order import HEAD, tie
from featurestore.transform.render import KEPT, MISSING_KEY, check_name, checks_sql, features_sql
from featurestore.transform.scratch import run_sql

QUARANTINE = pa.schema(
    [
        pa.field("sequence", pa.int64(), nullable=False),
        pa.field("event_timestamp", TIMESTAMP, nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("row", pa.string(), nullable=False),  # JSON
    ]
)


@dataclass(frozen=True, slots=True)
class FeatureRows:
    """What a view makes of a batch; every row in is exactly one of logged, quarantined and filtered."""

    rows: pa.Table  # order.HEAD, then the view's columns
    quarantined: pa.Table  # QUARANTINE
    rows_in: int
    filtered: int
    warnings: Mapping[str, int]  # expectation → rows that missed it, though they are logged


def feature_rows(view: FeatureView, table: pa.Table, batch: Batch) -> FeatureRows:
    """Apply `view` to the landed rows of `batch`.

    Raises:
        TerminalError: an expression fails on these rows; the message names the view and says why.
    """
    rows = prepared_rows(view, table)
    checks = _run(view, checks_sql(view), rows)
    kept = _mask(checks, KEPT)
    missing_key = _mask(checks, MISSING_KEY)
    met = [_mask(checks, check_name(index)) for index in range(len(view.expect))]
    refused = missing_key.copy()
    for one, mask in zip(view.expect, met, strict=True):
        if one.on_fail == "quarantine":
            refused |= ~mask
    logged = kept & ~refused
    warned = {
        one.sql: int((logged & ~mask).sum())
        for one, mask in zip(view.expect, met, strict=True)
        if one.on_fail == "warn"
    }
    return FeatureRows(
        rows=_with_head(_run(view, features_sql(view), rows.filter(pa.array(logged, pa.bool_()))), view, batch),
        quarantined=_quarantined(view, table, kept & refused, missing_key, met),
        rows_in=table.num_rows,
        filtered=int((~kept).sum()),
        warnings={sql: count for sql, count in warned.items() if count},
    )


def prepared_rows(view: FeatureView, table: pa.Table) -> pa.Table:
    """The landed rows as the view's SQL sees them: the timestamp under its own name, and the transform's columns."""
    rows = _as_declared(view, table)
    for name, landed in view.source.times.items():
        if name not in table.column_names:
            rows = rows.append_column(name, rows[landed])
    if view.transform is None:
        return rows
    where = f"view {view.name!r}, transform {getattr(view.transform, '__name__', '?')}"
    try:
        transformed = view.transform(rows)
    except Exception as error:  # the user's code: whatever it raises is said with its place
        raise TerminalError(f"{where}: {type(error).__name__}: {error}") from error
    if not isinstance(transformed, pa.Table):
        raise TerminalError(f"{where}: it returned {shown(transformed)}; return the Arrow table with its new columns")
    if transformed.num_rows != rows.num_rows or not transformed.column("sequence").equals(rows["sequence"]):
        raise TerminalError(f"{where}: a transform adds columns; it must keep the rows and their order")
    return transformed


def no_rows(view: FeatureView) -> pa.Table:
    """What `prepared_rows` makes of nothing: its columns."""
    # Not `schema.empty_table()`: that looks for pandas, and takes half a second when it finds it.
    return prepared_rows(view, pa.Table.from_batches([], landed_schema(view.source)))


def _as_declared(view: FeatureView, table: pa.Table) -> pa.Table:
    """With the optional columns that the source has been given since these rows landed."""
    for field in landed_schema(view.source):
        if field.name not in table.column_names:
            if not field.nullable:
                raise TerminalError(
                    f"view {view.name!r}: these rows landed before source {view.source.name!r} had a column "
                    f"{field.name!r}; declare it optional"
                )
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table


def _with_head(features: pa.Table, view: FeatureView, batch: Batch) -> pa.Table:
    def constant(value: int) -> pa.Array:
        return pa.array(np.full(features.num_rows, value, np.int64))

    created_at = constant(to_micros(batch.created_at)).cast(TIMESTAMP)
    if view.source.created_at:
        created_at = features["created_at"].fill_null(pa.scalar(to_micros(batch.created_at), TIMESTAMP))
    brought = {
        "created_at": created_at,
        "tie": constant(tie(batch.batch_id)),
    }
    columns = {name: brought[name] if name in brought else features[name] for name in HEAD}
    return pa.Table.from_pydict({**columns, **{column.name: features[column.name] for column in view.columns}})


def _quarantined(
    view: FeatureView, table: pa.Table, refused: np.ndarray, missing_key: np.ndarray, met: list[np.ndarray]
) -> pa.Table:
    places = np.flatnonzero(refused)
    if not len(places):
        return QUARANTINE.empty_table()
    reasons: list[str] = []
    for place in places:
        failed = ["the entity's key is missing"] if missing_key[place] else []
        failed += [
            f"expectation not met: {one.sql}"
            for one, mask in zip(view.expect, met, strict=True)
            if one.on_fail == "quarantine" and not mask[place]
        ]
        reasons.append("; ".join(failed))
    rows = table.take(pa.array(places, pa.int64()))
    texts = [msgspec.json.encode(row).decode() for row in rows.drop_columns(["sequence"]).to_pylist()]
    return pa.Table.from_pydict(
        {"sequence": rows["sequence"], "event_timestamp": rows["event_timestamp"], "reason": reasons, "row": texts},
        schema=QUARANTINE,
    )


def _run(view: FeatureView, sql: str, rows: pa.Table) -> pa.Table:
    try:
        return run_sql(sql, name="rows", table=rows)
    except duckdb.Error as error:
        raise TerminalError(f"view {view.name!r}: {error}") from error


def _mask(checks: pa.Table, name: str) -> np.ndarray:
    return checks[name].to_numpy()
