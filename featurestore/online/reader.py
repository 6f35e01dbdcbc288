"""One round trip per read: an HMGET per entity, decoded by hand into values with a status."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from featurestore.definitions.feature import FeatureOf
from featurestore.errors import DefinitionError
from featurestore.online.codec import HEADER_BYTES, decode, decode_event_timestamp, stamp
from featurestore.online.keys import Keys, order_field, value_field
from featurestore.online.values import MISSING, OnlineValue, Status

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class _Cell:
    """Where a feature stands in the reply, and how old it may be."""

    name: str
    column: int
    longest_age_us: int | None


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """What to ask of each entity, and how to read the reply."""

    prefix: bytes
    fields: tuple[bytes, ...]
    head: bytes
    tail: bytes
    views: tuple[tuple[int, tuple[_Cell, ...]], ...]  # per view version: the order field's column, then the features
    features: tuple[FeatureOf, ...]

    def key(self, entity_id: str) -> bytes:
        return b"%s%s}" % (self.prefix, entity_id.encode())

    def frames(self, entity_ids: Sequence[str]) -> bytes:
        """The commands, in the protocol's own bytes."""
        head, tail = self.head, self.tail
        keys = [self.key(entity_id) for entity_id in entity_ids]
        return b"".join([b"%s$%d\r\n%s\r\n%s" % (head, len(key), key, tail) for key in keys])

    def values(self, reply: Sequence[bytes | None], now_us: int) -> dict[str, OnlineValue]:
        """The values of one entity, in the order the features were asked for."""
        found: dict[str, OnlineValue] = {}
        for order_column, cells in self.views:
            order = reply[order_column]
            if order is None:
                for cell in cells:
                    found[cell.name] = MISSING
            else:
                found.update(_row(cells, reply, order, now_us))
        return {wanted.name: found[wanted.name] for wanted in self.features} if len(self.views) > 1 else found


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
    for (view, version), wanted in groupby(sorted(features, key=_view_version), key=_view_version):
        order_column = len(fields)
        fields.append(order_field(view, version))
        cells: list[_Cell] = []
        for one in wanted:
            age = one.feature.longest_age
            cells.append(_Cell(one.name, len(fields), None if age is None else age // _MICROSECOND))
            fields.append(value_field(one.name, version))
        views.append((order_column, tuple(cells)))
    return ReadPlan(
        prefix=keys.entity_prefix(entity),
        fields=tuple(fields),
        head=b"*%d\r\n$5\r\nHMGET\r\n" % (len(fields) + 2),
        tail=b"".join(b"$%d\r\n%s\r\n" % (len(field), field) for field in fields),
        views=tuple(views),
        features=tuple(features),
    )


def to_micros(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def _view_version(wanted: FeatureOf) -> tuple[str, int]:
    return wanted.view, wanted.version


def _row(
    cells: Sequence[_Cell], reply: Sequence[bytes | None], order: bytes, now_us: int
) -> Iterator[tuple[str, OnlineValue]]:
    """The values of one view version of one entity; all of the same row, by their stamps."""
    event_us = decode_event_timestamp(order)
    event_timestamp = _EPOCH + timedelta(microseconds=event_us)
    age_us, row_stamp = now_us - event_us, stamp(order)
    for cell in cells:
        raw = reply[cell.column]
        if raw is None or raw[1:HEADER_BYTES] != row_stamp:
            yield cell.name, MISSING
        elif cell.longest_age_us is not None and age_us > cell.longest_age_us:
            yield cell.name, OnlineValue(None, Status.EXPIRED, event_timestamp)
        else:
            value = decode(raw)
            status = Status.NULL if value is None else Status.PRESENT
            yield cell.name, OnlineValue(value, status, event_timestamp)
