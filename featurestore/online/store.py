"""The online store: the newest value of every online feature, a cache of the log."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from featurestore.definitions.reference import FeatureOf
from featurestore.definitions.view import FeatureView
from featurestore.entity_id import WHOLE, Piece
from featurestore.online.values import Activation, OnlineValue, Pushed, PutCounts

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Read:
    """Features of some entities of one kind."""

    entity: str
    entity_ids: Sequence[str]
    features: Sequence[FeatureOf]


@dataclass(frozen=True, slots=True)
class StoredOrder:
    """Which row an entity's values of a view version are of: its order field, as it is stored."""

    entity_id: str
    order: bytes


@dataclass(frozen=True, slots=True)
class StoredRing:
    """A ring of windows of an entity as it is stored."""

    entity_id: str
    key: bytes
    fields: Mapping[bytes, bytes]


class OnlineStore(Protocol):
    """What RedisOnlineStore and MemoryOnlineStore do alike.

    Newest wins: whatever the order, number and concurrency of pushes, an entity's values of one view version are
    those of the newest row pushed (featurestore.order), and a tile of its windows is that of the newest snapshot.
    Pushing the same rows again changes nothing, except that it fills features that were not online before.

    The log comes first: rows are pushed once they are in the log, and a push says which ledger lines it carried. What
    the log has and `pushed` does not list has to be pushed (again). The list belongs to the view version *and the set
    of its online features*, so marking another feature online makes every line unlisted, and code that does not know
    of that feature yet cannot hide lines from code that does.
    """

    def begin(self) -> str:
        """The store as it is now, for a push in pieces: give it to the push of each, and list the lines with the last.

        A push that is given it fails with StoreUnavailableError if anything may have been lost since.
        """
        ...

    def push(
        self,
        view: FeatureView,
        rows: "pa.Table",
        commit_seqs: Sequence[int],
        *,
        tiles: "pa.Table | None" = None,
        since: str | None = None,
    ) -> PutCounts:
        """Write the online features of `rows`, then list the ledger lines `commit_seqs` as pushed.

        Rows are those of the log: HEAD columns and the view's. A view with windows needs the tiles in which the rows
        lie (featurestore.offline.tiles). When it returns, all is in the store; when it raises, any part of the values
        may be, and no line is listed. Safe to repeat.
        """
        ...

    def pushed(self, view: FeatureView) -> Pushed:
        """Which ledger lines of this view version are in the store."""
        ...

    def settle(self, view: FeatureView, lines: Sequence[int], *, above: int = 0, log: str = "") -> None:
        """Shorten the list: move the position over the first of `lines` that are listed, never back.

        `lines` are the commit_seqs of ALL ledger lines of the view version above `above`, ascending. Nothing moves if
        the store's position is below `above` (it lost its content since the caller looked). `log` is the epoch of the
        database that they are of; it is kept if the store knows of none.
        """
        ...

    def filled(self, view: FeatureView, piece: Piece, line: int, log: str, *, since: str) -> None:
        """Note that a piece of the entities has every ledger line up to `line` and nothing that `log` lacks.

        When all pieces are noted, the lines up to the least of theirs are listed. Fails as a push with `since` does.
        """
        ...

    def unfilled(self, view: FeatureView, of: int, log: str) -> Sequence[int]:
        """Which of so many pieces are not noted since the last time that all were."""
        ...

    def read(
        self, entity: str, entity_ids: Sequence[str], features: Sequence[FeatureOf], now: datetime
    ) -> list[dict[str, OnlineValue]]:
        """The newest values by feature name, one mapping per entity id, in one round trip.

        The values of one view are of one row. A value of exactly `max_age` is fresh.
        """
        ...

    def read_all(self, reads: Sequence[Read], now: datetime) -> list[list[dict[str, OnlineValue]]]:
        """Several reads, of any entities and some features each, in one round trip; as many answers."""
        ...

    async def read_all_async(self, reads: Sequence[Read], now: datetime) -> list[list[dict[str, OnlineValue]]]:
        """As `read_all`, for an event loop: no thread waits, however many await."""
        ...

    def stored(self, view: FeatureView, piece: Piece = WHOLE) -> Iterator[Sequence[StoredOrder]]:
        """The rows that the values of this view version are of, some at a time; an entity may come twice."""
        ...

    def replace(self, view: FeatureView, orders: Mapping[str, bytes], rows: "pa.Table") -> int:
        """Take away the entities' values of this view version if they are still of the row with that order.

        In the same step the entity's row of `rows`, if it has one, takes their place. Returns how many were replaced.
        """
        ...

    def rings(self, view: FeatureView, piece: Piece = WHOLE) -> Iterator[Sequence[StoredRing]]:
        """The rings of windows that are stored of this view version, some at a time; one may come twice."""
        ...

    def correct(self, view: FeatureView, stored: Sequence[StoredRing], tiles: "pa.Table | None") -> int:
        """Make rings those of the log, whatever their snapshots; `tiles` are all that the log has of these entities.

        What has been written since the rings were read stays. Returns how many tiles were replaced or taken away.
        """
        ...

    def forget(self, entity: str, view: str, version: int, features: Sequence[str]) -> None:
        """Take away the values of a version that was dropped from the log, and what was listed of it."""
        ...

    def active(self) -> Mapping[str, int]:
        """The active version of each view, as far as the store was told."""
        ...

    def activate(self, choices: Sequence[Activation]) -> None:
        """Note which versions are active; an earlier choice never replaces a later one of the same database."""
        ...

    def close(self) -> None:
        """Give the connections back; closing twice is harmless."""
        ...
