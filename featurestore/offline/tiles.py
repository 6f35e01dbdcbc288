"""Tiles from the log: what an entity's inputs of one hop come to, as of one snapshot.

A tile is always made anew from all of its rows. To add what is new to a stored tile would count it twice when a run is
repeated; a tile made from a snapshot may be written any number of times, and the later snapshot is the better one.

Columns: hop_us, entity_id, k (the tile), newest_us (event_timestamp of the newest input), commit_seq (of the snapshot),
and per aggregation one with its name: how many inputs for a count, else their fold, NULL without any. A mean, whose
fold is the sum, has <name>:count as well.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import pyarrow as pa

from featurestore.database.client import Database
from featurestore.database.reads import Value
from featurestore.definitions.feature import Aggregation
from featurestore.definitions.rings import Ring
from featurestore.definitions.view import FeatureView
from featurestore.entity_id import WHOLE, Piece
from featurestore.landing.batch import from_micros
from featurestore.offline.tables import log_relation
from featurestore.order import HEAD, ORDER_COLUMNS
from featurestore.windows import tile_sql

_PART_TILES = 200_000  # about so many in one answer of the database service
_ORDER = ", ".join(ORDER_COLUMNS)

# The rows that tiles are made of: `r`, and which of them are `fresh`: a tile with such a row is wanted.
_TOUCHED = """
    WITH touched AS MATERIALIZED (
        SELECT DISTINCT entity_id FROM {log} WHERE commit_seq IN $commit_seqs AND {part}
    ), r AS MATERIALIZED (
        SELECT {columns}, commit_seq IN $commit_seqs AS fresh FROM {log} SEMI JOIN touched USING (entity_id)
        WHERE {within}
    )
"""
_RECENT = "WITH r AS MATERIALIZED (SELECT {columns}, true AS fresh FROM {log} WHERE {within} AND {which} AND {part})"

# Which rows: all of the tiles that fresh ones can be in, or all of the tiles that a read can reach.
_AROUND = (
    "event_timestamp > $first::TIMESTAMP - to_microseconds({hop_us}) "
    "AND event_timestamp <= $last::TIMESTAMP + to_microseconds({hop_us})"
)
_REACHED = (
    "event_timestamp > time_bucket("
    "to_microseconds({hop_us}), $now::TIMESTAMP - to_microseconds({reach_us}), TIMESTAMP '1970-01-01')"
)


def touched_tiles(
    database: Database, view: FeatureView, rows: pa.Table, commit_seqs: Sequence[int]
) -> Iterator[pa.Table]:
    """The tiles in which the rows of some ledger lines lie, all of their rows taken in; in one or more parts.

    `rows` are these rows, for their number and their times; what a tile is made of is what the log has.
    """
    if not view.rings or not rows.num_rows:
        return
    times_us = rows["event_timestamp"].cast(pa.int64()).to_numpy()
    first, last = from_micros(int(times_us.min())), from_micros(int(times_us.max()))
    bounds = {"commit_seqs": list(commit_seqs), "first": first, "last": last}
    yield from _in_parts(database, view, _TOUCHED, _AROUND, bounds, WHOLE.split(_parts(view, rows.num_rows)))


def recent_tiles(
    database: Database,
    view: FeatureView,
    *,
    now: datetime,
    entity_ids: Sequence[str] | None = None,
    piece: Piece = WHOLE,
) -> Iterator[pa.Table]:
    """Every tile that a read at `now` or later can reach, of the entities of a piece or of those named; in parts."""
    if not view.rings:
        return
    if entity_ids is not None:
        sql = _RECENT.replace("{which}", "entity_id IN $entity_ids")
        yield from _in_parts(database, view, sql, _REACHED, {"now": now, "entity_ids": list(entity_ids)}, [WHOLE])
        return
    reached = f"{_within(_REACHED, view.rings)} AND {piece.sql}"
    counted = database.query_arrow(f"SELECT count(*) AS rows FROM {log_relation(view)} WHERE {reached}", {"now": now})
    parts = piece.split(_parts(view, int(counted["rows"][0].as_py())))
    yield from _in_parts(database, view, _RECENT.replace("{which}", "true"), _REACHED, {"now": now}, parts)


def _parts(view: FeatureView, rows: int) -> int:
    return max(1, -(-rows * len(view.rings) // _PART_TILES))


def _in_parts(
    database: Database,
    view: FeatureView,
    rows_sql: str,
    within: str,
    bounds: Mapping[str, Value],
    parts: Sequence[Piece],
) -> Iterator[pa.Table]:
    """Parts are made of different entities, each from a snapshot of its own, which is all that its tiles need."""
    columns = ", ".join([*HEAD, *(f'"{declared.name}"' for declared in _aggregations(view))])
    tiles, wanted = _tiles_sql(view, within), _within(within, view.rings)
    for part in parts:
        rows = rows_sql.format(log=log_relation(view), columns=columns, within=wanted, part=part.sql)
        yield database.query_arrow(rows + tiles, bounds)


def _aggregations(view: FeatureView) -> Sequence[Aggregation]:
    """Those that are in rings."""
    return tuple(dict.fromkeys(declared for ring in view.rings for declared in ring.aggregations))


def _within(condition: str, rings: Sequence[Ring]) -> str:
    """The condition for all of the rings; their hops divide one another."""
    hop_us, reach_us = max(ring.hop_us for ring in rings), max(ring.hop_us * ring.slots for ring in rings)
    return condition.format(hop_us=hop_us, reach_us=reach_us)


def _tiles_sql(view: FeatureView, within: str) -> str:
    """The wanted tiles of all rings.

    To fold in order costs several times as much as to fold, so it is done only where an entity has so many rows that
    their order can make a difference.
    """
    declared = _aggregations(view)
    if not any(_needs_order(one) for one in declared):
        return _folded(view, within, "r", in_order=False)
    any_order = 1 if any(one.function in {"first", "last"} for one in declared) else 2  # a + b is b + a
    few = _folded(view, within, "r ANTI JOIN many USING (entity_id)", in_order=False)
    many = _folded(view, within, "r SEMI JOIN many USING (entity_id)", in_order=True)
    return (
        f", many AS MATERIALIZED (SELECT entity_id FROM r GROUP BY entity_id HAVING count(*) > {any_order}) "
        f"{few} UNION ALL {many}"
    )


def _folded(view: FeatureView, within: str, rows: str, *, in_order: bool) -> str:
    """The wanted tiles that are made of some rows."""
    hops = [ring.hop_us for ring in view.rings]
    in_rings = " OR ".join(_in_ring(ring, within) for ring in view.rings)
    folds = ", ".join(fold for declared in _aggregations(view) for fold in _folds(declared, in_order=in_order))
    return (
        f"SELECT hop_us, entity_id, {tile_sql('event_timestamp', 'hop_us')} AS k, "
        "epoch_us(max(event_timestamp)) AS newest_us, (SELECT max(commit_seq) FROM applied) AS commit_seq, "
        f"{folds} FROM (SELECT *, unnest({hops}) AS hop_us FROM {rows}) WHERE {in_rings} "
        "GROUP BY hop_us, entity_id, k HAVING bool_or(fresh)"
    )


def _in_ring(ring: Ring, within: str) -> str:
    """Whether a row has an input of the ring, at a time that is wanted of it."""
    counted = " OR ".join(f'"{declared.name}" IS NOT NULL' for declared in ring.aggregations)
    return f"(hop_us = {ring.hop_us} AND {_within(within, [ring])} AND ({counted}))"


def _needs_order(declared: Aggregation) -> bool:
    return declared.function in {"first", "last", "mean"} or (declared.function == "sum" and declared.dtype is float)


def _folds(declared: Aggregation, *, in_order: bool) -> list[str]:
    column = f'"{declared.name}"'
    order = f" ORDER BY {_ORDER}" if in_order and _needs_order(declared) else ""
    match declared.function:
        case "count":
            return [f"count({column}) AS {column}"]
        case "sum":
            return [f"sum({column}{order}) AS {column}"]
        case "mean":
            return [f"sum(CAST({column} AS DOUBLE){order}) AS {column}", f'count({column}) AS "{declared.name}:count"']
        case "min" | "max":
            plain = f"{column} + 0.0" if declared.dtype is float else column  # -0.0 and 0.0 are one value
            return [f"{declared.function}({plain}) AS {column}"]
        case "first" | "last":
            return [f"{declared.function}({column}{order}) FILTER ({column} IS NOT NULL) AS {column}"]
