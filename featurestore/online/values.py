"""What the online store answers: a value with its status, counts of a write, and what is already written."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import msgspec

Scalar = str | int | float | bool


class Status(StrEnum):
    """What is known of a feature of an entity at the moment of the read."""

    PRESENT = "PRESENT"
    NULL = "NULL"  # the newest row says that there is no value
    MISSING = "MISSING"  # no row has arrived
    EXPIRED = "EXPIRED"  # the newest value is older than the feature's max_age


# A Struct, because a read makes one per cell and a frozen dataclass takes six times as long to make.
class OnlineValue(msgspec.Struct, frozen=True):
    """The value of a feature; `value` is None unless the status is PRESENT, but for a count of nothing, which is 0.

    A window is as of the later of now and its `event_timestamp`.
    """

    value: Scalar | None
    status: Status
    event_timestamp: datetime | None  # of the row, or the newest one that is counted; aware UTC, None if MISSING


MISSING = OnlineValue(None, Status.MISSING, None)


@dataclass(frozen=True, slots=True)
class PutCounts:
    """What became of pushed rows: each is exactly one of written, stale and folded; and of tiles of windows."""

    written: int = 0
    stale: int = 0  # a newer row of the entity was there already
    folded: int = 0  # a newer row of the entity was in the same push
    long_values: int = 0  # fields too long for Redis' compact hashes; see codec.COMPACT_BYTES
    tiles: int = 0  # that were written

    def __add__(self, other: "PutCounts") -> "PutCounts":
        return PutCounts(
            self.written + other.written,
            self.stale + other.stale,
            self.folded + other.folded,
            self.long_values + other.long_values,
            self.tiles + other.tiles,
        )


@dataclass(frozen=True, slots=True)
class Activation:
    """Which version of a view is active; of two choices of one database (`epoch`), the larger `commit_seq` counts."""

    view: str
    version: int
    commit_seq: int
    epoch: str


@dataclass(frozen=True, slots=True)
class Pushed:
    """Which of a target's ledger lines are in the online store: all up to `position`, and those `above` it.

    They are lines of the database whose epoch is `log`. After another one was restored in its place, the store may have
    what that one lacks.
    """

    position: int = 0
    above: frozenset[int] = frozenset()
    log: str = ""  # empty: nobody has said so far

    def __contains__(self, commit_seq: int) -> bool:
        return commit_seq <= self.position or commit_seq in self.above
