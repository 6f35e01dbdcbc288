"""The rows of one view in the one order that point-in-time reads need: by entity, then by the total order.

Sorted once, everything a read asks for is a range of neighbours: the newest row at a time is the last one before a
place found by binary search, and a window is the rows between two such places.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from featurestore.training.pit_plan import FOREVER_US
from featurestore.training.spine import Entities, Int64s, pc

_KEY_BITS = 63
_PIECE = 250_000  # rows that are worth a thread
_EVER = np.iinfo(np.int64)


class Instants:
    """Times as small whole numbers that keep their order: distances from the first, or ranks where these are too large.

    Where the entity and the time fit into one 64-bit number, sorting and searching are several times faster than
    with two columns.
    """

    def __init__(self, times_us: Int64s, spare_bits: int) -> None:
        self._first, self._last = (int(times_us.min()), int(times_us.max())) if len(times_us) else (0, 0)
        numbers = self._last - self._first + 2
        self._ranked = None
        if numbers.bit_length() > spare_bits:
            self._ranked = np.unique(times_us)
            numbers = len(self._ranked) + 1
        self.bits = numbers.bit_length()

    def __call__(self, times_us: Int64s) -> Int64s:
        """The number of each time; of one that lies between two, that of the earlier; 0 before the first."""
        if self._ranked is None:
            return np.clip(times_us, self._first - 1, self._last) - (self._first - 1)
        return np.searchsorted(self._ranked, times_us, side="right")


@dataclass(frozen=True, slots=True)
class Moments:
    """When the spine looks: an entity's number and a time per row, sorted, because neighbours are found faster."""

    codes: Int64s
    times_us: Int64s
    rows: Int64s  # which row of the spine each is

    @classmethod
    def of(cls, entities: Entities, times_us: Int64s) -> "Moments":
        instants = Instants(times_us, _KEY_BITS - len(entities.ids).bit_length())
        rows = np.argsort(_packed(entities.codes, instants(times_us), instants.bits))
        return cls(entities.codes[rows], times_us[rows], rows)

    def at(self, times_us: Int64s) -> "Moments":
        """The same entities at other times."""
        return Moments(self.codes, times_us, self.rows)

    def between(self, first: int, end: int) -> "Moments":
        """Some neighbours, as the moments of a spine that has them in this order."""
        return Moments(self.codes[first:end], self.times_us[first:end], np.arange(end - first))

    def cut(self, pieces: int) -> "list[Moments]":
        """Pieces of about the same size, in order; the moments of an entity stay together."""
        size = len(self.codes)
        edges = [np.searchsorted(self.codes, self.codes[size * piece // pieces]) for piece in range(1, pieces)]
        return [self.between(first, end) for first, end in pairwise([0, *edges, size])]

    def to_spine(self, values: Int64s) -> Int64s:
        """A value per moment in the order of the spine."""
        placed = np.empty_like(values)
        placed[self.rows] = values
        return placed


@dataclass(frozen=True, slots=True)
class Bounds:
    """Which rows can matter to any of the moments, per entity; what lies outside is not even sorted."""

    after_us: Int64s  # per entity
    until_us: Int64s
    known_until_us: int  # created at

    @classmethod
    def of(cls, moments: Moments, starts_us: Int64s | None, entities: int, *, known_until_us: int) -> "Bounds":
        """From the earliest of `starts_us` (None: from the beginning) to the latest moment."""
        after, until = np.full((2, entities + 1), _EVER.min)  # the last one is nobody's: -1
        if starts_us is not None:
            after.fill(_EVER.max)
            np.minimum.at(after, moments.codes, starts_us)
        np.maximum.at(until, moments.codes, moments.times_us)
        return cls(after, until, known_until_us)

    def hold(self, codes: Int64s, times_us: Int64s, log: pa.Table) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
        """Whether each row lies within; those of entities that the spine does not have (-1) do not."""
        within = (times_us <= self.until_us[codes]) & (times_us > self.after_us[codes])
        if self.known_until_us < FOREVER_US:
            within &= int64s(log, "created_at") <= self.known_until_us
        return within


@dataclass(frozen=True, slots=True)
class Candidates:
    """Rows of a log that can matter: where each stands, the number of its entity, its time."""

    rows: Int64s
    codes: Int64s
    times_us: Int64s

    @classmethod
    def of(cls, log: pa.Table, entities: Entities, bounds: Bounds) -> "Candidates":
        """Those within `bounds`."""
        # Each piece makes a hash table of the spine's entities: pieces are no smaller than that.
        pieces = pieces_of(log.num_rows, at_least=len(entities.ids))
        edges = [log.num_rows * piece // pieces for piece in range(pieces + 1)]

        def find(first: int, end: int) -> tuple[Int64s, Int64s, Int64s]:
            some = log.slice(first, end - first)
            codes, times_us = codes_of(some, entities), int64s(some, "event_timestamp")
            rows = np.flatnonzero(bounds.hold(codes, times_us, some))
            return rows + first, codes[rows], times_us[rows]

        with ThreadPoolExecutor(pieces) as pool:
            found = pool.map(find, edges, edges[1:])
            return cls(*(np.concatenate(one) for one in zip(*found, strict=True)))

    def about(self, moments: Moments) -> "Candidates":
        """Those of the entities from that of the first moment to that of the last."""
        if not len(moments.codes):
            return self
        these = (self.codes >= moments.codes[0]) & (self.codes <= moments.codes[-1])
        return Candidates(self.rows[these], self.codes[these], self.times_us[these])


class Timeline:
    """The candidates sorted by entity and total order.

    `rows` says where each stands in the log table, `visible_us` from when on it counts: from its event's time on, or
    when it is known if that is later. Both conditions are on one and the same time, so the later one decides.
    """

    def __init__(self, log: pa.Table, candidates: Candidates, entities: Entities, *, delay_us: int | None) -> None:
        """`delay_us` is the delay of known_at="row", None without it."""
        rows, codes, times = candidates.rows, candidates.codes, candidates.times_us
        spare_bits = _KEY_BITS - len(entities.ids).bit_length()
        self._instants = Instants(times, spare_bits)
        keys = _packed(codes, self._instants(times), self._instants.bits)
        order = np.argsort(keys)
        self._keys = keys[order]
        order = _with_ties_in_order(order, self._keys, log, rows)
        self.rows, self.codes, self.times_us = rows[order], codes[order], times[order]
        self.visible_us: Int64s | None = None
        if delay_us is not None:
            self.visible_us = np.maximum(self.times_us, int64s(log, "created_at")[self.rows] + delay_us)
        self._spare_bits = spare_bits

    def __len__(self) -> int:
        return len(self.rows)

    def until(self, moments: Moments) -> Int64s:
        """Behind the last row of the entity that happened at or before each moment."""
        return self._place(moments)

    def after(self, moments: Moments) -> Int64s:
        """The first row of the entity that happened after each moment."""
        return self._place(moments)

    def between(self, starts_us: Int64s, moments: Moments) -> Int64s:
        """Where the rows stand in the log table that a moment sees, and that happened after its start.

        Starts do not fall from a moment of an entity to its next, so the first moment that sees a row decides.
        """
        if not len(moments.codes):
            return self.rows[:0]
        seen_us = self.times_us if self.visible_us is None else self.visible_us
        instants = Instants(moments.times_us, self._spare_bits)
        keys = _packed(moments.codes, instants(moments.times_us), instants.bits)
        before = _packed(self.codes, instants(seen_us - 1), instants.bits)
        first = np.minimum(np.searchsorted(keys, before, side="right"), len(keys) - 1)
        sees = (moments.codes[first] == self.codes) & (moments.times_us[first] >= seen_us)
        return self.rows[sees & (starts_us[first] < self.times_us)]

    def newest(self, moments: Moments) -> Int64s:
        """Where the newest visible row of the entity stands in the log table; -1 where there is none."""
        if self.visible_us is None:
            return self._last_of_entity(self._keys, self.rows, self._key(moments), self._instants.bits)
        # A row that becomes visible after a newer one did is never the newest. The others become visible in their
        # own order, so that among them the newest visible one is found by time alone.
        instants = Instants(self.visible_us, self._spare_bits)
        keys = _packed(self.codes, instants(self.visible_us), instants.bits)
        following = np.append(np.minimum.accumulate(keys[::-1])[::-1][1:], np.iinfo(np.int64).max)
        first = np.flatnonzero(keys < following)
        wanted = _packed(moments.codes, instants(moments.times_us), instants.bits)
        return self._last_of_entity(keys[first], self.rows[first], wanted, instants.bits)

    def _place(self, moments: Moments) -> Int64s:
        return np.searchsorted(self._keys, self._key(moments), side="right")

    def _key(self, moments: Moments) -> Int64s:
        return _packed(moments.codes, self._instants(moments.times_us), self._instants.bits)

    @staticmethod
    def _last_of_entity(keys: Int64s, rows: Int64s, wanted: Int64s, bits: int) -> Int64s:
        found = np.full(len(wanted), -1, np.int64)
        if len(keys):
            places = np.searchsorted(keys, wanted, side="right") - 1
            same = (places >= 0) & (keys[places] >> bits == wanted >> bits)
            found[same] = rows[places[same]]
        return found


def int64s(table: pa.Table, name: str) -> Int64s:
    """A column of whole numbers or times as numpy has it."""
    return table.column(name).cast(pa.int64()).to_numpy()


def codes_of(log: pa.Table, entities: Entities) -> Int64s:
    """The number of each row's entity in the spine; -1 for others."""
    found = pc.index_in(log.column("entity_id"), value_set=entities.ids)
    return pc.fill_null(found, -1).cast(pa.int64()).to_numpy()


def pieces_of(rows: int, *, at_least: int = 0) -> int:
    """Into how many pieces of at least so many rows to cut, a thread for each."""
    return max(1, min(pa.cpu_count(), rows // max(_PIECE, at_least)))


def _packed(codes: Int64s, instants: Int64s, bits: int) -> Int64s:
    return (codes << bits) | instants


def _with_ties_in_order(order: Int64s, keys: Int64s, log: pa.Table, rows: Int64s) -> Int64s:
    """Order rows of one entity and event time by the rest of the total order."""
    same = keys[1:] == keys[:-1]
    tied = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
    if len(tied):
        among = order[tied]
        by = [int64s(log, name)[rows[among]] for name in ("tie", "sequence", "created_at")]
        order[tied] = among[np.lexsort([*by, keys[tied]])]
    return order
