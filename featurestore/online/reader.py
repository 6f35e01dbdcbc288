"""One round trip per read: an HMGET per entity, and an HVALS per ring of windows, decoded by hand into values."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from featurestore.definitions.reference import FeatureOf
from featurestore.definitions.rings import Ring, RingWindow
from featurestore.errors import DefinitionError, FormatError
from featurestore.online.codec import FLOAT, decode, decode_float, event_micros, stamp
from featurestore.online.keys import Keys, entity_key, order_field, ring_suffix, value_field
from featurestore.online.tiles import read_windows
from featurestore.online.values import MISSING, OnlineValue, Status
from featurestore.order import ORDER_BYTES

MAX_PLANS = 256  # kept

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


# A feature's name, its column in the reply, and its longest age in microseconds; a tuple, for the innermost loop.
_Cell = tuple[str, int, int | None]


@dataclass(frozen=True, slots=True)
class RingPlan:
    """A ring of windows, and which of them are wanted."""

    suffix: bytes  # of the key
    windows: tuple[tuple[str, RingWindow], ...]


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """What to ask of each entity, and how to read the replies."""

    features: tuple[FeatureOf, ...]
    missing: Mapping[str, OnlineValue]  # every feature of an entity without rows, in the order they were asked for
    prefix: bytes
    fields: tuple[bytes, ...]  # of the entity's hash, all views together
    head: bytes
    tail: bytes
    views: tuple[tuple[int, tuple[_Cell, ...]], ...]  # per view version: the order field's column, then the features
    rings: tuple[RingPlan, ...]

    def key(self, entity_id: str) -> bytes:
        return entity_key(self.prefix, entity_id)

    def commands(self, entity_id: str) -> list[bytes]:
        """In the protocol's own bytes; all keys of an entity lie together."""
        key = self.key(entity_id)
        row = [b"%s$%d\r\n%s\r\n%s" % (self.head, len(key), key, self.tail)] if self.fields else []
        if not self.rings:
            return row
        rings = [key + ring.suffix for ring in self.rings]
        return [*row, *(b"*2\r\n$5\r\nHVALS\r\n$%d\r\n%s\r\n" % (len(ring), ring) for ring in rings)]

    def values(self, replies: Iterator[Sequence[bytes | None]], now_us: int) -> dict[str, OnlineValue]:
        """The values of one entity, in the order the features were asked for; takes the replies to its commands."""
        found = dict(self.missing)
        if self.fields:
            reply = next(replies)
            for order_column, cells in self.views:
                order = reply[order_column]
                if order is not None:
                    _read_row(found, cells, reply, order, now_us)
        for ring in self.rings:
            found.update(read_windows(ring.windows, next(replies), now_us))
        return found


def plan_read(keys: Keys, entity: str, features: Sequence[FeatureOf]) -> ReadPlan:
    """Plan a read; the fields of a view version stand behind its order field.

    Raises:
        DefinitionError: two features (of two versions) have the same name, so one mapping cannot hold both.
    """
    names = [wanted.name for wanted in features]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DefinitionError(f"feature {twice!r} is asked for twice; read two versions of a view in two reads")
    fields: list[bytes] = []
    views: list[tuple[int, tuple[_Cell, ...]]] = []
    of_rows = sorted((one for one in features if one.window is None), key=_view_version)
    for (view, version), wanted in groupby(of_rows, key=_view_version):
        order_column = len(fields)
        fields.append(order_field(view, version))
        cells: list[_Cell] = []
        for one in wanted:
            age = one.feature.longest_age
            cells.append((one.name, len(fields), None if age is None else age // _MICROSECOND))
            fields.append(value_field(one.name, version))
        views.append((order_column, tuple(cells)))
    return ReadPlan(
        features=tuple(features),
        missing=dict.fromkeys(names, MISSING),
        prefix=keys.entity_prefix(entity),
        fields=tuple(fields),
        head=b"*%d\r\n$5\r\nHMGET\r\n" % (len(fields) + 2),
        tail=b"".join(b"$%d\r\n%s\r\n" % (len(field), field) for field in fields),
        views=tuple(views),
        rings=_ring_plans(features),
    )


def _ring_plans(features: Sequence[FeatureOf]) -> tuple[RingPlan, ...]:
    by_ring: dict[tuple[str, int, Ring], list[tuple[str, RingWindow]]] = {}
    for one in features:
        if one.window is not None:
            by_ring.setdefault((one.view, one.version, one.window.ring), []).append((one.name, one.window))
    return tuple(RingPlan(ring_suffix(*of), tuple(windows)) for of, windows in by_ring.items())


class Plans:
    """Plans that were made, by the identity of the features: who reads often asks with the same objects."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._made: dict[tuple[str, tuple[int, ...]], ReadPlan] = {}

    def plan(self, entity: str, features: Sequence[FeatureOf]) -> ReadPlan:
        asked = (entity, tuple(map(id, features)))
        plan = self._made.get(asked)
        if plan is None:
            if len(self._made) >= MAX_PLANS:
                self._made.clear()
            # The plan holds the features, so their ids name nothing else as long as it is here.
            plan = self._made[asked] = plan_read(self._keys, entity, features)
        return plan


def to_micros(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def _view_version(wanted: FeatureOf) -> tuple[str, int]:
    return wanted.view, wanted.version


def _read_row(
    found: dict[str, OnlineValue], cells: Sequence[_Cell], reply: Sequence[bytes | None], order: bytes, now_us: int
) -> None:
    """Add the values of one view version of one entity; all of the same row, by their stamps."""
    if len(order) != ORDER_BYTES:
        return  # damage, which the next row heals
    event_us = event_micros(order)
    event_timestamp = _EPOCH + timedelta(microseconds=event_us)
    age_us, row_stamp = now_us - event_us, stamp(order)
    for name, column, longest_age_us in cells:
        raw = reply[column]
        if raw is None or raw[1:5] != row_stamp:
            continue
        if longest_age_us is not None and age_us > longest_age_us:
            found[name] = OnlineValue(None, Status.EXPIRED, event_timestamp)
            continue
        try:
            value = decode_float(raw)[0] if raw[0] == FLOAT else decode(raw)
        except (ValueError, struct.error) as error:
            raise FormatError(f"the value of feature {name!r} in Redis cannot be read: {error}") from error
        found[name] = OnlineValue(value, Status.NULL if value is None else Status.PRESENT, event_timestamp)
