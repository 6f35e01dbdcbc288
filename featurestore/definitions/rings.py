"""What is kept of a view's windows so that they can be read online: rings of tiles, one ring per hop.

A ring has a slot for each tile that a read of its longest window can touch; tile k stands in slot k mod the ring's
size, and a newer tile takes the place of one that no window reaches any more.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from featurestore.definitions.durations import duration
from featurestore.definitions.feature import Aggregation
from featurestore.entity_id import hash64
from featurestore.windows import Window


@dataclass(frozen=True, slots=True)
class Ring:
    """The tiles of one hop; what is kept of a tile is a part per aggregation, in this order."""

    hop_us: int
    slots: int
    aggregations: tuple[Aggregation, ...]

    @property
    def name(self) -> str:
        """Names what is in the ring as well, so that nothing is ever read as what it is not."""
        kept = [f"{one.name} {one.function} {one.dtype.__name__}" for one in self.aggregations]
        return f"{self.hop_us // 1_000_000}s.{hash64(','.join([str(self.slots), *kept])) % 2**32:08x}"


@dataclass(frozen=True, slots=True)
class RingWindow:
    """Where a window feature is read: which ring, which of its aggregations, and how much of it."""

    ring: Ring
    place: int
    window: Window

    @property
    def aggregation(self) -> Aggregation:
        return self.ring.aggregations[self.place]


def ring_windows(aggregations: Iterable[Aggregation]) -> dict[str, RingWindow]:
    """By the feature's name, for each window of some aggregations."""
    by_hop: dict[int, list[tuple[str, Aggregation, Window]]] = {}
    for declared in aggregations:
        for feature, text in zip(declared.features, declared.windows, strict=True):
            window = Window.of(duration(text, f"aggregation {declared.name!r}, windows"))
            by_hop.setdefault(window.hop_us, []).append((feature.name, declared, window))
    found: dict[str, RingWindow] = {}
    for hop_us, windows in by_hop.items():
        kept = tuple(dict.fromkeys(declared for _, declared, _ in windows))
        ring = Ring(hop_us, max(window.ring_tiles for _, _, window in windows), kept)
        found |= {name: RingWindow(ring, kept.index(declared), window) for name, declared, window in windows}
    return found
