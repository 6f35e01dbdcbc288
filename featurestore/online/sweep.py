"""Values that the log lacks, after it was restored from a backup or a person was erased: found and taken away."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from featurestore.definitions.view import FeatureView
from featurestore.entity_id import WHOLE, Piece
from featurestore.online.store import OnlineStore, StoredOrder, StoredRing
from featurestore.order import ORDER_BYTES, ORDER_COLUMNS, Order

ENTITIES = 5_000  # asked of the log at once, about

Some = TypeVar("Some", StoredOrder, StoredRing)
Chosen = Callable[[Sequence[str]], Collection[str]]  # those of some entities that are looked at


def everyone(entity_ids: Sequence[str]) -> Collection[str]:
    return entity_ids


def sweep(
    online: OnlineStore,
    view: FeatureView,
    newest: Callable[[Sequence[str]], pa.Table],
    piece: Piece = WHOLE,
    chosen: Chosen = everyone,
) -> int:
    """Replace every row of the view that is newer than all rows of its entity in the log; return how many.

    `newest` gives the newest rows of some entities in the log (HEAD and the view's columns). It is asked after the
    online store was read, and rows are in the log before they are online, so what it does not know is not in the log.
    Safe beside pushes: only values that are still those of such a row are replaced.
    """
    replaced = 0
    for some in _many(online.stored(view, piece), chosen):
        rows = newest([one.entity_id for one in some])
        lacking = ghosts(some, rows)
        if lacking:
            instead = rows.filter(pc.is_in(rows["entity_id"].cast(pa.string()), pa.array(list(lacking), pa.string())))
            replaced += online.replace(view, lacking, instead)
    return replaced


def sweep_windows(
    online: OnlineStore,
    view: FeatureView,
    tiles: Callable[[Sequence[str]], Iterable[pa.Table]],
    piece: Piece = WHOLE,
    chosen: Chosen = everyone,
) -> int:
    """Make the rings of the view those of the log, and drop rings of other windows; return how many tiles changed.

    `tiles` gives every tile of some entities that a read can reach, from the log. It is asked after the rings were
    read, so what it lacks is not in the log. Safe beside pushes, as `sweep` is.
    """
    changed = 0
    for some in _many(online.rings(view, piece), chosen):
        logged = list(tiles(list(dict.fromkeys(ring.entity_id for ring in some))))
        changed += online.correct(view, some, pa.concat_tables(logged) if logged else None)
    return changed


def ghosts(stored: Sequence[StoredOrder], newest: pa.Table) -> Mapping[str, bytes]:
    """Which rows are newer than the newest of the log, or unreadable: entity id → order as it is stored."""
    places = zip(*(newest[name].cast(pa.int64()).to_pylist() for name in ORDER_COLUMNS), strict=True)
    in_log = dict(zip(newest["entity_id"].to_pylist(), (Order(*place) for place in places), strict=True))
    return {one.entity_id: one.order for one in stored if _is_ghost(one.order, in_log.get(one.entity_id))}


def _many(few: Iterable[Sequence[Some]], chosen: Chosen) -> Iterator[list[Some]]:
    """Those that are chosen, more at a time."""
    gathered: list[Some] = []
    for some in few:
        wanted = frozenset(chosen([one.entity_id for one in some]))
        gathered += [one for one in some if one.entity_id in wanted]
        if len(gathered) >= ENTITIES:
            yield gathered
            gathered = []
    if gathered:
        yield gathered


def _is_ghost(stored: bytes, in_log: Order | None) -> bool:
    return in_log is None or len(stored) != ORDER_BYTES or Order.from_bytes(stored) > in_log
