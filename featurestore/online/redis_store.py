"""The online store in Redis."""

import logging
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TypeVar, cast

import pyarrow as pa

from featurestore.definitions.reference import FeatureOf
from featurestore.definitions.view import FeatureView
from featurestore.entity_id import WHOLE, Piece
from featurestore.errors import FormatError, StoreUnavailableError
from featurestore.online.codec import COMPACT_BYTES, FORMAT
from featurestore.online.connection import PACKAGE, MovedSlotsError, Reply, Wire, script
from featurestore.online.keys import NO_BRACE, Keys, all_fields, entity_key, fields_of, order_field, rings_suffix
from featurestore.online.lists import Lists, everywhere
from featurestore.online.puts import Push, put_rows, put_tiles
from featurestore.online.reader import Plans
from featurestore.online.redis_reads import RedisReads
from featurestore.online.servers import Node, Servers, Topology, scan
from featurestore.online.store import Read, StoredOrder, StoredRing
from featurestore.online.tiles import check_tiles, encode_tiles, fields_of_rings, swaps
from featurestore.online.values import Activation, OnlineValue, Pushed, PutCounts
from featurestore.online.writer import encoded, fields_by_key, newest_rows

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class RedisOnlineStore:
    """OnlineStore over one Redis server (6.2 or newer, or Valkey) or a cluster; thread-safe.

    On a cluster each master has the lists of pushed lines for itself, and a line counts as pushed if every master has
    it; see servers.py for addresses, keys.py for names.

    Raises, from every method: StoreUnavailableError (no answer within `timeout_s`), TransientError (out of memory,
    read-only, a cluster that moves keys), SettingsError (credentials), FormatError (written by a newer version).
    """

    def __init__(self, url: str, *, replica_url: str = "", namespace: str = "", timeout_s: float = 5.0) -> None:
        self._servers = Servers(url, timeout_s=timeout_s)
        self._replica = Servers(replica_url, timeout_s=timeout_s) if replica_url else None
        self._keys = Keys(namespace)
        self._reads = RedisReads(self._servers, self._replica, Plans(self._keys))

    def begin(self) -> str:
        return ",".join(self._on_each(lambda node, wire: self._named_epoch(node, wire, self._begin(node, wire))))

    def push(
        self,
        view: FeatureView,
        rows: pa.Table,
        commit_seqs: Sequence[int],
        *,
        tiles: pa.Table | None = None,
        since: str | None = None,
    ) -> PutCounts:
        """Write values, then list the lines, on one connection per server; see OnlineStore.

        Started once more, from the first value, when the connection breaks or Redis is emptied meanwhile.
        """
        check_tiles(view, rows, commit_seqs, tiles)
        what = Push(view, newest_rows(rows), tiles, commit_seqs, since)
        folded = PutCounts(folded=rows.num_rows - what.rows.num_rows)
        try:
            counts = self._push(what)
        except (StoreUnavailableError, MovedSlotsError) as error:
            log.warning("push of %s starts again: %s", view.target, error)
            counts = self._push(what)
        if counts.long_values:
            log.warning(
                "%d values of %s take more than %d bytes, which multiplies the memory of their entities",
                counts.long_values, view.target, COMPACT_BYTES,
            )  # fmt: skip
        return folded + counts

    def pushed(self, view: FeatureView) -> Pushed:
        return everywhere(self._on_each(lambda node, wire: self._lists(view, node).read(wire)))

    def settle(self, view: FeatureView, lines: Sequence[int], *, above: int = 0, log: str = "") -> None:
        self._on_each(lambda node, wire: self._lists(view, node).settle(wire, lines, above, log))

    def filled(self, view: FeatureView, piece: Piece, line: int, log: str, *, since: str) -> None:
        def note(node: Node, wire: Wire) -> None:
            epoch = self._begin(node, wire, since)
            if not self._lists(view, node).fill(wire, epoch, piece, line, log):
                raise self._emptied(node)

        self._on_each(note)

    def unfilled(self, view: FeatureView, of: int, log: str) -> Sequence[int]:
        missing = self._on_each(lambda node, wire: self._lists(view, node).unfilled(wire, of, log))
        return sorted(set[int]().union(*missing))

    def read(
        self, entity: str, entity_ids: Sequence[str], features: Sequence[FeatureOf], now: datetime
    ) -> list[dict[str, OnlineValue]]:
        return self.read_all([Read(entity, entity_ids, features)], now)[0]

    def read_all(self, reads: Sequence[Read], now: datetime) -> list[list[dict[str, OnlineValue]]]:
        return self._reads.read_all(reads, now)

    async def read_all_async(self, reads: Sequence[Read], now: datetime) -> list[list[dict[str, OnlineValue]]]:
        return await self._reads.read_all_async(reads, now)

    def stored(self, view: FeatureView, piece: Piece = WHOLE) -> Iterator[Sequence[StoredOrder]]:
        prefix, name = self._keys.entity_prefix(view.entity.name), order_field(view.name, view.version)
        for node in self._servers.topology(fresh=True).nodes:
            for found_keys in scan(node, prefix + b"*}"):
                keys = [key for key in found_keys if piece.holds(key[len(prefix) : -1].decode())]
                with node.server.wire() as wire:
                    orders = wire.pipeline([("HGET", key, name) for key in keys])
                found = zip(keys, cast("list[bytes | None]", orders), strict=True)
                if some := [StoredOrder(key[len(prefix) : -1].decode(), order) for key, order in found if order]:
                    yield some

    def replace(self, view: FeatureView, orders: Mapping[str, bytes], rows: pa.Table) -> int:
        prefix, instead = self._keys.entity_prefix(view.entity.name), fields_by_key(view, rows, self._keys)
        name, *others = all_fields(view)
        replaced = 0
        for entity_id, order in orders.items():
            key = entity_key(prefix, entity_id)
            new = [part for field in instead.get(key, {}).items() for part in field]
            topology = self._servers.topology()
            with topology.nodes[topology.place(key)].server.wire() as wire:
                found = wire.run(script(PACKAGE, "replace.lua"), [key], [name, order, len(others), *others, *new])
            replaced += cast("int", found)
        return replaced

    def rings(self, view: FeatureView, piece: Piece = WHOLE) -> Iterator[Sequence[StoredRing]]:
        prefix, suffix = self._keys.entity_prefix(view.entity.name), b"}" + rings_suffix(view.name, view.version)
        for node in self._servers.topology(fresh=True).nodes:
            for keys in scan(node, prefix + b"*" + suffix + NO_BRACE):
                ids = [(key[len(prefix) : key.rindex(suffix)].decode(), key) for key in keys]
                held = [(entity_id, key) for entity_id, key in ids if piece.holds(entity_id)]
                with node.server.wire() as wire:
                    found = cast("list[list[bytes]]", wire.pipeline([("HGETALL", key) for _, key in held]))
                fields = [dict(zip(flat[::2], flat[1::2], strict=True)) for flat in found]
                yield [StoredRing(*one, has) for one, has in zip(held, fields, strict=True)]

    def correct(self, view: FeatureView, stored: Sequence[StoredRing], tiles: pa.Table | None) -> int:
        logged, swapped = fields_of_rings(view, tiles, self._keys), 0
        for ring in stored:
            given = [part for swap in swaps(ring.fields, logged.get(ring.key, {})) for part in swap]
            if given:
                topology = self._servers.topology()
                with topology.nodes[topology.place(ring.key)].server.wire() as wire:
                    swapped += cast("int", wire.run(script(PACKAGE, "swap.lua"), [ring.key], given))
        return swapped

    def forget(self, entity: str, view: str, version: int, features: Sequence[str]) -> None:
        names, entities = fields_of(view, version, features), self._keys.entity_prefix(entity)
        for node in self._servers.topology(fresh=True).nodes:
            positions = self._keys.positions(view, version, node.mark).encode()
            for pattern, command in (
                (entities + b"*}", ("HDEL", *names)),
                (entities + b"*}" + rings_suffix(view, version) + NO_BRACE, ("DEL",)),
                (positions + b"*", ("DEL",)),
            ):
                for keys in scan(node, pattern):
                    with node.server.wire() as wire:
                        wire.pipeline([(command[0], key, *command[1:]) for key in keys])

    def active(self) -> Mapping[str, int]:
        key = self._keys.active()
        found = self._reads.asked(lambda topology: _with_key(topology, key, lambda wire: wire.call("HGETALL", key)))
        flat = cast("list[bytes]", found)
        return {view.decode(): int(choice.split()[0]) for view, choice in zip(flat[::2], flat[1::2], strict=True)}

    def activate(self, choices: Sequence[Activation]) -> None:
        key, told = self._keys.active(), script(PACKAGE, "activate.lua")
        given = [part for one in choices for part in (one.view, one.version, one.commit_seq, one.epoch)]
        self._reads.asked(lambda topology: _with_key(topology, key, lambda wire: wire.run(told, [key], given)))

    def close(self) -> None:
        self._servers.close()
        if self._replica is not None:
            self._replica.close()

    def _push(self, what: Push) -> PutCounts:
        """One try, on one connection to each node."""
        topology = self._servers.topology(fresh=True)
        parts = [what] if len(topology.nodes) == 1 else what.parts(topology, self._keys)
        counts = PutCounts()
        for node, part in zip(topology.nodes, parts, strict=True):
            counts += self._push_to(node, part)
        return counts

    def _push_to(self, node: Node, what: Push) -> PutCounts:
        counts = PutCounts()
        with node.server.wire() as wire:
            epoch = self._begin(node, wire, what.since)
            for chunk in encoded(what.view, what.rows, self._keys):
                counts += put_rows(wire, chunk)
            if what.tiles is not None:
                counts += put_tiles(wire, encode_tiles(what.view, what.tiles, self._keys))
            if not self._lists(what.view, node).mark(wire, epoch, what.commit_seqs):
                raise self._emptied(node)
            if what.since is not None and wire.call("HGET", self._keys.store(node.mark), "epoch") != epoch:
                raise self._emptied(node)
        return counts

    def _on_each(self, call: Callable[[Node, Wire], Result]) -> list[Result]:
        """What a call returns for each node, with a connection to it."""
        found: list[Result] = []
        for node in self._servers.topology(fresh=True).nodes:
            with node.server.wire() as wire:
                found.append(call(node, wire))
        return found

    def _lists(self, view: FeatureView, node: Node) -> Lists:
        return Lists(self._keys, view, node.mark)

    def _named_epoch(self, node: Node, wire: Wire, epoch: bytes) -> str:
        """Another one after a restart, too, which may have lost what was not yet in the append-only file."""
        info = cast("bytes", wire.call("INFO", "server"))
        run_id = next(line for line in info.splitlines() if line.startswith(b"run_id:"))
        return f"{node.mark} {epoch.decode()} {run_id.decode()}"

    def _begin(self, node: Node, wire: Wire, since: str | None = None) -> bytes:
        """Load the scripts and return the epoch; a Redis that starts from nothing gets a new one.

        Raises:
            StoreUnavailableError: it is not as it was at `since`.
        """
        store = self._keys.store(node.mark)
        *_, (found, epoch) = cast(
            "list[tuple[bytes | None, bytes | None]]",
            wire.pipeline(
                [
                    ("SCRIPT", "LOAD", script(PACKAGE, "newest.lua").text),
                    ("SCRIPT", "LOAD", script(PACKAGE, "tiles.lua").text),
                    ("HSETNX", store, "format", FORMAT),
                    ("HSETNX", store, "epoch", secrets.token_hex(8)),
                    ("HMGET", store, "format", "epoch"),
                ]
            ),
        )
        if found is None or epoch is None:
            raise self._emptied(node)
        if int(found) > FORMAT:
            raise FormatError(
                f"Redis at {node.server.address} holds format {int(found)}, and this version writes {FORMAT}; "
                "upgrade featurestore-dagster, or use another FEATURESTORE_NAMESPACE"
            )
        if since is not None and self._named_epoch(node, wire, epoch) not in since.split(","):
            raise self._emptied(node)
        return epoch

    def _emptied(self, node: Node) -> StoreUnavailableError:
        return StoreUnavailableError("Redis", node.server.address, "it was emptied during a push")


def _with_key(topology: Topology, key: str, call: Callable[[Wire], Reply]) -> Reply:
    """What a call answers on the node that has the key; it may be made twice."""
    with topology.nodes[topology.place(key.encode())].server.wire() as wire:
        return call(wire)
