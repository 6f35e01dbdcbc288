"""Tiles as fields of a hash, and what a window comes to when it is read; no I/O.

A ring of an entity is a hash with a field per slot, named by the slot's number. Its value:

    tile        8 bytes   k, float64 big-endian (exact below 2^53, as Lua reads it)
    snapshot    8 bytes   commit_seq, float64 big-endian
    rest                  msgpack: the newest input's event_timestamp, then a part per aggregation of the ring
"""

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.definitions.feature import Aggregation
from featurestore.definitions.rings import Ring, RingWindow
from featurestore.definitions.view import FeatureView
from featurestore.errors import FormatError, TerminalError
from featurestore.landing.batch import from_micros
from featurestore.online.keys import Keys, entity_key, ring_suffix
from featurestore.online.values import OnlineValue, Scalar, Status

GUARD = struct.Struct(">dd")  # what is compared: the tile, then the snapshot

_LARGEST_EXACT = 2**53
_INT64 = range(-(2**63), 2**63)

Part = Any  # of one aggregation in one tile: None, a scalar, or for a mean [sum, count]


@dataclass(frozen=True, slots=True)
class RingFields:
    """What is to be written into the ring of one entity."""

    key: bytes
    fields: Mapping[bytes, bytes]

    def frame(self, sha: bytes) -> bytes:
        """The call of the script `sha`, in the protocol's own bytes."""
        words = [b"EVALSHA", sha, b"1", self.key, *(part for field in self.fields.items() for part in field)]
        return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%s\r\n" % (len(word), word) for word in words])


def check_tiles(view: FeatureView, rows: pa.Table, commit_seqs: Sequence[int], tiles: pa.Table | None) -> None:
    """Refuse to list lines whose windows would be missing."""
    if view.rings and rows.num_rows and commit_seqs and tiles is None:
        raise ValueError(f"{view.target} has windows online; a push of its rows needs their tiles")


def encode_tiles(view: FeatureView, tiles: pa.Table, keys: Keys) -> Iterator[RingFields]:
    """Tiles (featurestore.offline.tiles has the columns) as fields, ring by ring and entity by entity."""
    prefix = keys.entity_prefix(view.entity.name)
    for ring in view.rings:
        suffix = ring_suffix(view.name, view.version, ring)
        fields: dict[str, dict[bytes, bytes]] = {}
        for entity_id, k, value in _values(ring, tiles.filter(pc.field("_hop_us") == ring.hop_us)):
            of_entity, slot = fields.setdefault(entity_id, {}), b"%d" % (k % ring.slots)
            if overwrites(value, of_entity.get(slot)):  # of a backfill, many tiles want the same slot
                of_entity[slot] = value
        for entity_id, written in fields.items():
            yield RingFields(entity_key(prefix, entity_id) + suffix, written)


def overwrites(new: bytes, stored: bytes | None) -> bool:
    """What tiles.lua decides."""
    return stored is None or len(stored) < GUARD.size or GUARD.unpack_from(new) >= GUARD.unpack_from(stored)


def fields_of_rings(view: FeatureView, tiles: pa.Table | None, keys: Keys) -> Mapping[bytes, Mapping[bytes, bytes]]:
    """By the ring's key; of a few entities."""
    return {} if tiles is None else {one.key: one.fields for one in encode_tiles(view, tiles, keys)}


def swaps(stored: Mapping[bytes, bytes], logged: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes, bytes]]:
    """Which slots the log fills otherwise, whatever the snapshots: field, stored value, the log's (empty: none)."""
    wanted = ((slot, value, logged.get(slot, b"")) for slot, value in stored.items())
    return [(slot, value, new) for slot, value, new in wanted if _content(value) != _content(new)]


def _content(value: bytes) -> tuple[bytes, bytes]:
    return value[:8], value[GUARD.size :]


def read_windows(
    windows: Sequence[tuple[str, RingWindow]], stored: Sequence[Any], now_us: int
) -> dict[str, OnlineValue]:
    """Window features of one ring, from all values of an entity's ring.

    The answer is for T = max(now, the newest input's time), because what is stored of a tile is all of it. The newest
    input's time comes with the values, so whoever knows `now` knows T. Without any input the status is MISSING, and a
    count is 0 as it is in a training set.

    Raises:
        FormatError: a value is not a tile.
        TerminalError: a sum does not fit into 64 bits.
    """
    if not stored:
        return {name: _EMPTY_COUNT if one.aggregation.function == "count" else _EMPTY for name, one in windows}
    try:
        tiles = sorted((GUARD.unpack_from(value)[0], value) for value in stored)
        newest_us: int = _decode(memoryview(tiles[-1][1])[GUARD.size :])[0]
        time_us = answered_for(now_us, newest_us)
        starts = {one.window: one.window.start(time_us) // one.window.hop_us for _, one in windows}
        first = min(starts.values())
        parts = [(k, _decode(memoryview(value)[GUARD.size :])) for k, value in tiles if k > first]
        newest = from_micros(newest_us)
        return {name: _value(name, one, starts[one.window], parts, newest) for name, one in windows}
    except (struct.error, msgspec.MsgspecError, ValueError, TypeError, IndexError) as error:
        raise FormatError(f"a ring of tiles in Redis cannot be read: {error}") from error


def answered_for(now_us: int, newest_us: int) -> int:
    """T: before the newest input's time, part of a stored tile would be the future."""
    return max(now_us, newest_us)


_EMPTY = OnlineValue(None, Status.MISSING, None)
_EMPTY_COUNT = OnlineValue(0, Status.MISSING, None)
_decode = msgspec.msgpack.Decoder().decode


def _value(name: str, one: RingWindow, start: int, tiles: Any, newest: Any) -> OnlineValue:
    place = one.place + 1
    value = _fold(name, one.aggregation, [parts[place] for k, parts in tiles if k > start and parts[place] is not None])
    return OnlineValue(value, Status.NULL if value is None else Status.PRESENT, newest)


def _values(ring: Ring, tiles: pa.Table) -> Iterator[tuple[str, int, bytes]]:
    """Entity, tile and bytes of each row."""
    head = [tiles[name].to_pylist() for name in ("entity_id", "_k", "commit_seq", "_newest_us")]
    parts = [_parts(declared, tiles) for declared in ring.aggregations]
    encode = msgspec.msgpack.Encoder().encode
    for entity_id, k, commit_seq, newest_us, *rest in zip(*head, *parts, strict=True):
        if abs(k) > _LARGEST_EXACT or commit_seq > _LARGEST_EXACT:
            raise ValueError(f"tile {k} or commit_seq {commit_seq} cannot be written exactly as float64")
        yield entity_id, k, GUARD.pack(k, commit_seq) + encode([newest_us, *rest])


def _parts(declared: Aggregation, tiles: pa.Table) -> list[Part]:
    values = tiles[declared.name].to_pylist()
    if declared.function == "count":
        return [value or None for value in values]
    if declared.function == "mean":
        counts = tiles[f"{declared.name}:count"].to_pylist()
        return [None if value is None else [value, count] for value, count in zip(values, counts, strict=True)]
    if declared.function == "sum" and declared.dtype is int:
        return [None if value is None else _whole_part(int(value)) for value in values]
    return values


def _whole_part(value: int) -> int | str:
    return value if value in _INT64 else str(value)  # msgpack's whole numbers have 64 bits


def _fold(name: str, declared: Aggregation, parts: Sequence[Part]) -> Scalar | None:
    """The parts of the tiles that are covered, the oldest first."""
    if declared.function == "count":
        return sum(parts)
    if not parts:
        return None
    if declared.function == "sum" and declared.dtype is int:
        return _whole(name, sum(int(part) for part in parts))
    return _FOLDS[declared.function](parts)


def _sum(values: Sequence[float]) -> float:
    total = 0.0
    for value in values:  # in this order: sum() of newer Pythons compensates, and other bits come out
        total += value
    return total


def _whole(name: str, total: int) -> int:
    if total not in _INT64:
        raise TerminalError(f"feature {name!r}: a sum does not fit into 64 bits; declare dtype=float")
    return total


def _nan_is_largest(value: Any) -> tuple[bool, Any]:
    return isinstance(value, float) and math.isnan(value), value


_FOLDS: Mapping[str, Callable[[Sequence[Part]], Scalar]] = {
    "sum": _sum,
    "mean": lambda parts: _sum([part[0] for part in parts]) / sum(part[1] for part in parts),
    "min": lambda parts: min(parts, key=_nan_is_largest),
    "max": lambda parts: max(parts, key=_nan_is_largest),
    "first": lambda parts: parts[0],
    "last": lambda parts: parts[-1],
}
