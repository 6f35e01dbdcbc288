"""The online store filled again from the log, piece by piece, and rid of what the log does not have."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from featurestore.database.client import Database
from featurestore.definitions.view import FeatureView
from featurestore.entity_id import WHOLE, Piece
from featurestore.offline.log import last_line
from featurestore.offline.newest import newest_rows
from featurestore.offline.tiles import recent_tiles
from featurestore.online.store import OnlineStore
from featurestore.online.sweep import sweep, sweep_windows
from featurestore.online.values import PutCounts


@dataclass(frozen=True, slots=True)
class Refilled:
    """What a rebuild of a view did."""

    put: PutCounts = field(default_factory=PutCounts)
    removed: int = 0  # rows and tiles that the log does not have

    def __add__(self, other: "Refilled") -> "Refilled":
        return Refilled(self.put + other.put, self.removed + other.removed)


def refill(view: FeatureView, piece: Piece, database: Database, online: OnlineStore, *, now: datetime) -> Refilled:
    """Make a piece of the entities equal to the log: push what it has, take away what it lacks, then note the piece.

    When all pieces of a view are noted, every ledger line that was there before the first counts as pushed. The last
    line is read before the rows: one that is appended in between is left to its own push. Safe beside pushes.
    """
    since = online.begin()
    epoch, line = last_line(database, view.target)
    put = fill(view, database, online, now=now, piece=piece, since=since)
    removed = sweep(online, view, lambda ids: newest_rows(database, view, entity_ids=ids), piece=piece)
    removed += sweep_windows(
        online, view, lambda ids: recent_tiles(database, view, now=now, entity_ids=ids), piece=piece
    )
    online.filled(view, piece, line, epoch, since=since)
    return Refilled(put, removed)


def fill(
    view: FeatureView,
    database: Database,
    online: OnlineStore,
    *,
    now: datetime,
    entity_ids: Sequence[str] | None = None,
    piece: Piece = WHOLE,
    since: str | None = None,
) -> PutCounts:
    """Push what reads at `now` and later can see of some entities, by default all; list nothing as pushed."""
    rows = newest_rows(database, view, entity_ids=entity_ids, piece=piece)
    counts = online.push(view, rows, [], since=since)
    for tiles in recent_tiles(database, view, now=now, entity_ids=entity_ids, piece=piece):
        counts += online.push(view, rows.slice(0, 0), [], tiles=tiles, since=since)
    return counts
