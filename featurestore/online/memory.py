"""The online store in memory: for tests, notebooks and materialize(). The fields and their bytes are those of Redis."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import pyarrow as pa

from featurestore.definitions.reference import FeatureOf
from featurestore.definitions.view import FeatureView
from featurestore.entity_id import WHOLE, Piece
from featurestore.online.keys import Keys, all_fields, entity_key, fields_of, order_field, rings_suffix
from featurestore.online.octets import as_list
from featurestore.online.reader import ReadPlan, plan_read, to_micros
from featurestore.online.store import Read, StoredOrder, StoredRing
from featurestore.online.tiles import check_tiles, encode_tiles, fields_of_rings, overwrites, swaps
from featurestore.online.values import Activation, OnlineValue, Pushed, PutCounts
from featurestore.online.writer import Encoded, encoded, fields_by_key, newest_rows
from featurestore.order import Order


class MemoryOnlineStore:
    """OnlineStore in this process; thread-safe, gone with the object."""

    def __init__(self) -> None:
        self._keys = Keys()
        self._hashes: defaultdict[bytes, dict[bytes, bytes]] = defaultdict(dict)
        self._pushed: dict[str, Pushed] = {}
        self._pieces: dict[str, dict[tuple[int, str], dict[int, int]]] = {}  # of how many, which log → piece → line
        self._logs: dict[str, str] = {}  # target → epoch of the database
        self._active: dict[str, Activation] = {}
        self._lock = threading.Lock()

    def begin(self) -> str:
        return "memory"

    def push(
        self,
        view: FeatureView,
        rows: pa.Table,
        commit_seqs: Sequence[int],
        *,
        tiles: pa.Table | None = None,
        since: str | None = None,
    ) -> PutCounts:
        check_tiles(view, rows, commit_seqs, tiles)
        newest = newest_rows(rows)
        counts = PutCounts(folded=rows.num_rows - newest.num_rows)
        with self._lock:
            for chunk in encoded(view, newest, self._keys):
                counts += self._put(chunk)
            if tiles is not None:
                counts += self._put_tiles(view, tiles)
            before = self._listed(view)
            listed = before.above.union(line for line in commit_seqs if line > before.position)
            self._pushed[self._keys.position(view)] = replace(before, above=listed)
        return counts

    def pushed(self, view: FeatureView) -> Pushed:
        with self._lock:
            return self._listed(view)

    def settle(self, view: FeatureView, lines: Sequence[int], *, above: int = 0, log: str = "") -> None:
        with self._lock:
            position, listed = (before := self._listed(view)).position, before.above
            if position < above:
                return
            for line in lines:
                if line > position:
                    if line not in listed:
                        break
                    position = line
            if log:
                self._logs.setdefault(view.target, log)
            self._settled(view, position)

    def filled(self, view: FeatureView, piece: Piece, line: int, log: str, *, since: str) -> None:
        with self._lock:
            at, whose = self._keys.position(view), (piece.of, log)
            noted = {**self._pieces.get(at, {}).get(whose, {}), piece.number: line}
            self._pieces[at] = {whose: noted}
            if len(noted) == piece.of:
                del self._pieces[at]
                self._logs[view.target] = log
                self._settled(view, max(self._listed(view).position, min(noted.values())))

    def unfilled(self, view: FeatureView, of: int, log: str) -> Sequence[int]:
        with self._lock:
            noted = self._pieces.get(self._keys.position(view), {}).get((of, log), {})
            return [number for number in range(of) if number not in noted]

    def read(
        self, entity: str, entity_ids: Sequence[str], features: Sequence[FeatureOf], now: datetime
    ) -> list[dict[str, OnlineValue]]:
        plan, now_us = plan_read(self._keys, entity, features), to_micros(now)
        with self._lock:
            return [plan.values(self._replies(plan, plan.key(entity_id)), now_us) for entity_id in entity_ids]

    def read_all(self, reads: Sequence[Read], now: datetime) -> list[list[dict[str, OnlineValue]]]:
        return [self.read(one.entity, one.entity_ids, one.features, now) for one in reads]

    async def read_all_async(self, reads: Sequence[Read], now: datetime) -> list[list[dict[str, OnlineValue]]]:
        return self.read_all(reads, now)

    def stored(self, view: FeatureView, piece: Piece = WHOLE) -> Iterator[Sequence[StoredOrder]]:
        prefix, name = self._keys.entity_prefix(view.entity.name), order_field(view.name, view.version)
        with self._lock:
            found = [(key, fields[name]) for key, fields in self._hashes.items() if name in fields]
        rows = [StoredOrder(key[len(prefix) : -1].decode(), order) for key, order in found if key.startswith(prefix)]
        yield [row for row in rows if piece.holds(row.entity_id)]

    def replace(self, view: FeatureView, orders: Mapping[str, bytes], rows: pa.Table) -> int:
        prefix, instead = self._keys.entity_prefix(view.entity.name), fields_by_key(view, rows, self._keys)
        replaced = 0
        with self._lock:
            for entity_id, order in orders.items():
                fields = self._hashes[key := entity_key(prefix, entity_id)]
                if fields.get(order_field(view.name, view.version)) == order:
                    for name in all_fields(view):
                        fields.pop(name, None)
                    fields.update(instead.get(key, {}))
                    replaced += 1
        return replaced

    def rings(self, view: FeatureView, piece: Piece = WHOLE) -> Iterator[Sequence[StoredRing]]:
        prefix, suffix = self._keys.entity_prefix(view.entity.name), b"}" + rings_suffix(view.name, view.version)
        with self._lock:
            found = [(key, dict(fields)) for key, fields in self._hashes.items() if _is_ring(key, suffix)]
        rings = [StoredRing(key[len(prefix) : key.rindex(suffix)].decode(), key, fields) for key, fields in found]
        yield [ring for ring in rings if piece.holds(ring.entity_id)]

    def correct(self, view: FeatureView, stored: Sequence[StoredRing], tiles: pa.Table | None) -> int:
        logged, swapped = fields_of_rings(view, tiles, self._keys), 0
        with self._lock:
            for ring in stored:
                for slot, old, new in swaps(ring.fields, logged.get(ring.key, {})):
                    if self._hashes[ring.key].get(slot) == old:
                        self._hashes[ring.key].pop(slot)
                        self._hashes[ring.key].update({slot: new} if new else {})
                        swapped += 1
        return swapped

    def forget(self, entity: str, view: str, version: int, features: Sequence[str]) -> None:
        names, entities = fields_of(view, version, features), self._keys.entity_prefix(entity)
        with self._lock:
            for key, fields in self._hashes.items():
                if key.startswith(entities):
                    for name in names:
                        fields.pop(name, None)
            rings = b"}" + rings_suffix(view, version)
            for key in [key for key in self._hashes if _is_ring(key, rings) and key.startswith(entities)]:
                del self._hashes[key]
            for key in [key for key in self._pushed if key.startswith(self._keys.positions(view, version))]:
                del self._pushed[key]
            self._logs.pop(f"{view}@v{version}", None)

    def active(self) -> Mapping[str, int]:
        with self._lock:
            return {one.view: one.version for one in self._active.values()}

    def activate(self, choices: Sequence[Activation]) -> None:
        with self._lock:
            for one in choices:
                known = self._active.get(one.view, one)
                if known.epoch != one.epoch or known.commit_seq <= one.commit_seq:
                    self._active[one.view] = one

    def close(self) -> None:
        """Nothing is held open."""

    def _settled(self, view: FeatureView, position: int) -> None:
        above = frozenset(line for line in self._listed(view).above if line > position)
        self._pushed[self._keys.position(view)] = Pushed(position, above)

    def _listed(self, view: FeatureView) -> Pushed:
        listed = self._pushed.get(self._keys.position(view), Pushed())
        return replace(listed, log=self._logs.get(view.target, ""))

    def _replies(self, plan: ReadPlan, key: bytes) -> Iterator[Sequence[bytes | None]]:
        """What Redis would answer."""
        if plan.fields:
            stored = self._hashes.get(key, {})
            yield [stored.get(field) for field in plan.fields]
        for ring in plan.rings:
            yield list(self._hashes.get(key + ring.suffix, {}).values())

    def _put_tiles(self, view: FeatureView, tiles: pa.Table) -> PutCounts:
        """What tiles.lua does, ring by ring."""
        written = 0
        for one in encode_tiles(view, tiles, self._keys):
            ring = self._hashes[one.key]
            fresh = {slot: value for slot, value in one.fields.items() if overwrites(value, ring.get(slot))}
            ring.update(fresh)
            written += len(fresh)
        return PutCounts(tiles=written)

    def _put(self, chunk: Encoded) -> PutCounts:
        """What newest.lua does, row by row."""
        order_name = chunk.fields[0][0]
        names = [name for name, _ in chunk.fields]
        written = 0
        for key, *row in zip(as_list(chunk.keys), *(as_list(column) for _, column in chunk.fields), strict=True):
            stored = self._hashes[key].get(order_name)
            if stored is None or Order.from_bytes(row[0]) >= Order.from_bytes(stored):
                self._hashes[key].update(zip(names, row, strict=True))
                written += 1
        return PutCounts(written, chunk.rows - written, long_values=chunk.long_values)


def _is_ring(key: bytes, suffix: bytes) -> bool:
    """The key of an entity may contain anything, and ends with a brace."""
    return suffix in key and not key.endswith(b"}")
