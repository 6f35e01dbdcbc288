"""The newest row of each entity, whole: its NULLs are NULL, no older value shines through."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from featurestore.database.client import Database
from featurestore.definitions.view import FeatureView
from featurestore.entity_id import WHOLE, Piece
from featurestore.offline.relations import log_relation
from featurestore.offline.snapshot import page_rows
from featurestore.order import HEAD, ORDER_SQL


def newest_rows(
    database: Database, view: FeatureView, *, entity_ids: Sequence[str] | None = None, piece: Piece = WHOLE
) -> pa.Table:
    """The newest row, by the total order, of each entity of a piece, or of those named: head and the view's columns."""
    if entity_ids is not None:
        return database.query_arrow(_newest(view, "entity_id IN $entity_ids"), {"entity_ids": list(entity_ids)})
    # In parts, by the hash of the entity, because a reply of the database is bounded.
    about = f"SELECT approx_count_distinct(entity_id) AS entities FROM {log_relation(view)}"
    [counted] = database.query(about, into=_Counted)
    parts = [*piece.split(1 + counted.entities // piece.of // page_rows(len(view.columns)))]
    tables = [database.query_arrow(_newest(view, part.sql)) for part in parts]
    return pa.concat_tables(tables).sort_by("entity_id")


def _newest(view: FeatureView, which: str) -> str:
    columns = ", ".join([*HEAD, *(f'"{column.name}"' for column in view.columns)])
    return (
        f"SELECT {columns} FROM {log_relation(view)} WHERE {which} "
        f"QUALIFY row_number() OVER (PARTITION BY entity_id ORDER BY {ORDER_SQL} DESC) = 1 ORDER BY entity_id"
    )


def recent_entity_ids(database: Database, views: Sequence[FeatureView], limit: int) -> list[str]:
    """The entities whose rows landed last, the latest first."""
    if not views:
        return []
    rows = " UNION ALL ".join(f"SELECT entity_id, created_at, event_timestamp FROM {log_relation(v)}" for v in views)
    sql = (
        f"SELECT entity_id FROM ({rows}) GROUP BY entity_id "
        "ORDER BY max(row(created_at, event_timestamp)) DESC, entity_id LIMIT $limit"
    )
    return [one.entity_id for one in database.query(sql, {"limit": limit}, into=_EntityId)]


@dataclass(frozen=True, slots=True)
class _Counted:
    entities: int


@dataclass(frozen=True, slots=True)
class _EntityId:
    entity_id: str
