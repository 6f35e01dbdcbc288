"""The newest row of each entity, whole: its NULLs are NULL, no older value shines through."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from featurestore.database.client import Database
from featurestore.definitions.view import FeatureView
from featurestore.offline.tables import log_relation
from featurestore.order import HEAD, ORDER_SQL


def newest_rows(database: Database, view: FeatureView, *, entity_ids: Sequence[str] | None = None) -> pa.Table:
    """The newest row, by the total order, of each entity (or of those named); the head, then the view's columns."""
    columns = ", ".join([*HEAD, *(f'"{column.name}"' for column in view.columns)])
    which = "" if entity_ids is None else "WHERE entity_id IN $entity_ids"
    sql = (
        f"SELECT {columns} FROM {log_relation(view)} {which} "
        f"QUALIFY row_number() OVER (PARTITION BY entity_id ORDER BY {ORDER_SQL} DESC) = 1 ORDER BY entity_id"
    )
    return database.query_arrow(sql, None if entity_ids is None else {"entity_ids": list(entity_ids)})


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
class _EntityId:
    entity_id: str
