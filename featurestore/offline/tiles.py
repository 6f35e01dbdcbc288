"""Tiles from the log: what an entity's inputs of one hop come to, as of one snapshot.

A tile is always made anew from all of its rows. To add what is new to a stored tile would count it twice when a run is
repeated; a tile made from a snapshot may be written any number of times, and the later snapshot is the better one.

Columns: _hop_us, entity_id, _k (the tile), _newest_us (event_timestamp of the newest input), commit_seq (of the
snapshot), and per aggregation one with its name: how many inputs for a count, else their fold, NULL without any. A
mean, whose fold is the sum, has <name>:count as well. No declared name begins with an underscore.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

import pyarrow as pa

from featurestore.database.client import Database
from featurestore.definitions.feature import Aggregation
from featurestore.definitions.rings import Ring
from featurestore.definitions.view import FeatureView
from featurestore.entity_id import WHOLE, Piece
from featurestore.landing.batch import from_micros, to_micros
from featurestore.offline.relations import log_relation
from featurestore.order import HEAD, ORDER_COLUMNS
from featurestore.windows import Window, tile_sql

_PART_TILES = 200_000  # about so many in one answer of the database service
_ORDER = ", ".join(ORDER_COLUMNS)
_EVER = datetime.max.replace(tzinfo=UTC)

# A row is an input of each ring in whose span it lies. Tiles with a fresh one are wanted.
_TILES = """
    WITH inputs AS MATERIALIZED (
        SELECT *, {k} AS _k FROM (
            SELECT {columns}, {fresh} AS _fresh,
                unnest($hops) AS _hop_us, unnest($after) AS _after, unnest($until) AS _until
            FROM {log} WHERE event_timestamp > list_min($after) AND event_timestamp <= list_max($until) AND {which}
        ) WHERE event_timestamp > _after AND event_timestamp <= _until AND ({counted})
    ), tiles AS MATERIALIZED (
        SELECT _hop_us, entity_id, _k, epoch_us(max(event_timestamp)) AS _newest_us, count(*) AS _size, {folds}
        FROM inputs GROUP BY _hop_us, entity_id, _k HAVING bool_or(_fresh)
    )
"""
# To fold in order costs several times as much as to fold, so it is done only where order can make a difference.
_IN_ORDER = """
    , in_order AS (
        SELECT _hop_us, entity_id, _k, {folds}
        FROM inputs SEMI JOIN (FROM tiles WHERE _size > {any_order}) USING (_hop_us, entity_id, _k)
        GROUP BY _hop_us, entity_id, _k
    )
"""
_ANSWER = """
    SELECT _hop_us, entity_id, _k, _newest_us, (SELECT max(commit_seq) FROM applied) AS commit_seq, {values} FROM tiles
"""


def touched_tiles(
    database: Database, view: FeatureView, rows: pa.Table, commit_seqs: Sequence[int]
) -> Iterator[pa.Table]:
    """The tiles in which the rows of some ledger lines lie, all of their rows taken in; in one or more parts.

    `rows` are these rows, for their number and their times; what a tile is made of is what the log has.
    """
    if not view.rings or not rows.num_rows:
        return
    times_us = rows["event_timestamp"].cast(pa.int64()).to_numpy()
    hops, first_us, last_us = [ring.hop_us for ring in view.rings], int(times_us.min()), int(times_us.max())
    params = {
        "hops": hops,
        "after": [from_micros(first_us - hop_us) for hop_us in hops],
        "until": [from_micros(last_us + hop_us) for hop_us in hops],
        "commit_seqs": list(commit_seqs),
    }
    fresh = "commit_seq IN $commit_seqs"
    for part in WHOLE.split(_parts(view, rows.num_rows)):
        touched = f"entity_id IN (SELECT entity_id FROM {log_relation(view)} WHERE {fresh} AND {part.sql})"
        yield database.query_arrow(_tiles_sql(view, touched, fresh=fresh), params)


def recent_tiles(
    database: Database,
    view: FeatureView,
    *,
    now: datetime,
    entity_ids: Sequence[str] | None = None,
    piece: Piece = WHOLE,
) -> Iterator[pa.Table]:
    """Every tile that a read at `now` or later can reach, of the entities of a piece or of those named; in parts.

    Parts are made of different entities, each from a snapshot of its own, which is all that its tiles need.
    """
    if not view.rings:
        return
    reached = [Window(ring.hop_us * ring.slots, ring.hop_us).start(to_micros(now)) for ring in view.rings]
    params = {
        "hops": [ring.hop_us for ring in view.rings],
        "after": [from_micros(time_us) for time_us in reached],
        "until": [_EVER for _ in view.rings],
    }
    if entity_ids is not None:
        ids = list(entity_ids)
        yield database.query_arrow(_tiles_sql(view, "entity_id IN $entity_ids"), {**params, "entity_ids": ids})
        return
    rows_sql = f"SELECT count(*) AS rows FROM {log_relation(view)} WHERE event_timestamp > $after AND {piece.sql}"
    rows = database.query_arrow(rows_sql, {"after": from_micros(min(reached))})["rows"][0].as_py()
    for part in piece.split(_parts(view, rows)):
        yield database.query_arrow(_tiles_sql(view, part.sql), params)


def _parts(view: FeatureView, rows: int) -> int:
    return max(1, -(-rows * len(view.rings) // _PART_TILES))


def _tiles_sql(view: FeatureView, which: str, *, fresh: str = "true") -> str:
    """The wanted tiles of all rings, from the rows of which a condition holds."""
    declared = tuple(dict.fromkeys(one for ring in view.rings for one in ring.aggregations))
    sql = _TILES.format(
        k=tile_sql("event_timestamp", "_hop_us"),
        columns=", ".join([*HEAD, *(f'"{one.name}"' for one in declared)]),
        fresh=fresh,
        log=log_relation(view),
        which=which,
        counted=_counted(view.rings),
        folds=", ".join(f"{fold} AS {name}" for one in declared for name, fold in _folds(one).items()),
    )
    values = {name: name for one in declared for name in _folds(one)}
    ordered = [one for one in declared if _needs_order(one)]
    if not ordered:
        return sql + _ANSWER.format(values=", ".join(values))
    folds = {name: fold for one in ordered for name, fold in _folds(one, f" ORDER BY {_ORDER}").items()}
    values |= {name: f"coalesce(in_order.{name}, tiles.{name}) AS {name}" for name in folds}
    sql += _IN_ORDER.format(
        folds=", ".join(f"{fold} AS {name}" for name, fold in folds.items()),
        any_order=1 if any(one.function in {"first", "last"} for one in ordered) else 2,  # a + b is b + a
    )
    return sql + _ANSWER.format(values=", ".join(values.values())) + "LEFT JOIN in_order USING (_hop_us, entity_id, _k)"


def _counted(rings: Sequence[Ring]) -> str:
    """Whether a row has an input of the ring."""
    hops: dict[str, list[int]] = {}
    for ring in rings:
        some = " OR ".join(f'"{declared.name}" IS NOT NULL' for declared in ring.aggregations)
        hops.setdefault(some, []).append(ring.hop_us)
    if len(hops) == 1:
        return next(iter(hops))
    return " OR ".join(f"list_contains({of}, _hop_us) AND ({some})" for some, of in hops.items())


def _needs_order(declared: Aggregation) -> bool:
    return declared.function in {"first", "last", "mean"} or (declared.function == "sum" and declared.dtype is float)


def _folds(declared: Aggregation, order: str = "") -> Mapping[str, str]:
    """Column and fold; a mean has two."""
    column = f'"{declared.name}"'
    match declared.function:
        case "count":
            return {column: f"count({column})"}
        case "sum":
            return {column: f"sum({column}{order})"}
        case "mean":
            return {column: f"sum(CAST({column} AS DOUBLE){order})", f'"{declared.name}:count"': f"count({column})"}
        case "min" | "max":
            plain = f"{column} + 0.0" if declared.dtype is float else column  # -0.0 and 0.0 are one value
            return {column: f"{declared.function}({plain})"}
        case "first" | "last":
            return {column: f"{declared.function}({column}{order}) FILTER ({column} IS NOT NULL)"}
