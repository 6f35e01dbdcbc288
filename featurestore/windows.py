"""LAW 2: which instants a window covers when it is read at T, and in which tile an instant lies.

Times are whole microseconds since 1970, UTC. A window of length w moves in hops: read at T it covers

    (floor_hop(T − w), T]         after the start, T itself included

so its far end moves from hop to hop while its near end is exact. Time is cut into tiles of one hop; tile k covers
(k·hop − hop, k·hop], open at the left like the window: every start is the edge of a tile, and a window is whole tiles
plus what the newest one holds up to T. docs/windows.md draws it.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from featurestore.errors import DefinitionError

if TYPE_CHECKING:
    import numpy as np

# One instant, or an array of them: `//` floors both, below 1970 too.
Instant = TypeVar("Instant", int, "np.ndarray[tuple[int], np.dtype[np.int64]]")

_SECOND = 1_000_000
HOPS = tuple(seconds * _SECOND for seconds in (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 10800, 21600, 43200, 86400))
FEWEST_HOPS = 24  # of a window: its far end is off by at most 1/24 of its length

_LONG_BEFORE_US = 10**6 * max(HOPS)  # whole tiles, whatever the hop; before 1970 by some 2,700 years


@dataclass(frozen=True, slots=True)
class Window:
    """A length and the hop that goes with it."""

    length_us: int
    hop_us: int

    @classmethod
    def of(cls, length: timedelta) -> "Window":
        """The window with the largest hop that divides its length and gives at least FEWEST_HOPS hops.

        Raises:
            DefinitionError: the length is shorter than 24 s, or not whole seconds.
        """
        length_us = length // timedelta(microseconds=1)
        fitting = [hop for hop in HOPS if length_us % hop == 0 and length_us // hop >= FEWEST_HOPS]
        if not fitting:
            raise DefinitionError(f"a window of {length} is not possible; it is whole seconds, at least 24")
        return cls(length_us, max(fitting))

    @property
    def ring_tiles(self) -> int:
        """How many tiles one read can touch, and so how many a ring has to hold."""
        return self.length_us // self.hop_us + 1

    def start(self, time_us: Instant) -> Instant:
        """The last instant that is not covered any more when the window is read at `time_us`."""
        return (time_us - self.length_us) // self.hop_us * self.hop_us

    def tile(self, time_us: Instant) -> Instant:
        """The tile of an instant: the ceiling, for an instant on an edge belongs to the tile that ends there."""
        return -(-time_us // self.hop_us)


def tile_sql(column: str, hop_us: int | str) -> str:
    """`Window.tile` of a TIMESTAMP column as SQL; the hop is a number or a column's name.

    DuckDB's // rounds towards zero, so times are moved to where that is the floor.
    """
    return f"((epoch_us({column}) - 1 + {_LONG_BEFORE_US}) // {hop_us} - {_LONG_BEFORE_US} // {hop_us} + 1)"
