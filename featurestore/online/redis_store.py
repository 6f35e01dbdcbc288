"""The online store in Redis."""

import logging
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import TypeVar, cast

import numpy as np
import pyarrow as pa
from redis.exceptions import NoScriptError

from featurestore.definitions.feature import FeatureOf
from featurestore.definitions.view import FeatureView
from featurestore.errors import FormatError, StoreUnavailableError
from featurestore.online.codec import COMPACT_BYTES, FORMAT
from featurestore.online.connection import MovedSlotsError, Reply, Wire, raise_first, script
from featurestore.online.fan_out import fan_out
from featurestore.online.keys import Keys, all_fields, entity_key, fields_of, order_field
from featurestore.online.reader import Plans, to_micros
from featurestore.online.servers import Node, Servers, Topology
from featurestore.online.store import Read, StoredOrder
from featurestore.online.values import Activation, OnlineValue, Pushed, PutCounts
from featurestore.online.writer import Encoded, encoded, fields_by_key, newest_rows

log = logging.getLogger(__name__)

LINES = 5_000  # ledger lines per script call, so that none holds the server for long
SCANNED = 1_000  # keys looked at in one step

_PACKAGE = "featurestore.online"

Result = TypeVar("Result")


class RedisOnlineStore:
    """OnlineStore over one Redis server (6.2 or newer, or Valkey) or a cluster; thread-safe.

    On a cluster each master has the lists of pushed lines for itself, and a line counts as pushed if every master has
    it; see servers.py for addresses, keys.py for names.

    Raises, from every method: StoreUnavailableError (no answer within `timeout_s`), TransientError (out of memory,
    read-only, a cluster that moves keys), SettingsError (credentials), FormatError (written by a newer version).
    """

    def __init__(self, url: str, *, namespace: str = "", timeout_s: float = 5.0) -> None:
        self._servers = Servers(url, timeout_s=timeout_s)
        self._keys = Keys(namespace)
        self._plans = Plans(self._keys)

    def begin(self) -> str:
        return self._asked(lambda topology: ",".join(self._epoch(node) for node in topology.nodes))

    def push(
        self, view: FeatureView, rows: pa.Table, commit_seqs: Sequence[int], *, since: str | None = None
    ) -> PutCounts:
        """Write values, then list the lines, on one connection per server; see OnlineStore.

        Started once more, from the first value, when the connection breaks or Redis is emptied meanwhile.
        """
        newest = newest_rows(rows)
        folded = PutCounts(folded=rows.num_rows - newest.num_rows)
        try:
            counts = self._push(view, newest, commit_seqs, since)
        except (StoreUnavailableError, MovedSlotsError) as error:
            log.warning("push of %s starts again: %s", view.target, error)
            counts = self._push(view, newest, commit_seqs, since)
        if counts.long_values:
            log.warning(
                "%d values of %s take more than %d bytes, which multiplies the memory of their entities",
                counts.long_values, view.target, COMPACT_BYTES,
            )  # fmt: skip
        return folded + counts

    def pushed(self, view: FeatureView) -> Pushed:
        return _everywhere([self._pushed(view, node) for node in self._servers.topology(fresh=True).nodes])

    def settle(self, view: FeatureView, lines: Sequence[int], *, above: int = 0) -> None:
        for node in self._servers.topology(fresh=True).nodes:
            self._settle(view, node, lines, above)

    def read(
        self, entity: str, entity_ids: Sequence[str], features: Sequence[FeatureOf], now: datetime
    ) -> list[dict[str, OnlineValue]]:
        return self.read_all([Read(entity, entity_ids, features)], now)[0]

    def read_all(self, reads: Sequence[Read], now: datetime) -> list[list[dict[str, OnlineValue]]]:
        asked = [one for one in reads if one.features]
        plans = [self._plans.plan(one.entity, one.features) for one in asked]

        def send(topology: Topology) -> list[Reply]:
            if not topology.owner:
                frames = b"".join([plan.frames(one.entity_ids) for plan, one in zip(plans, asked, strict=True)])
                with topology.nodes[0].server.wire() as wire:
                    return raise_first(wire.send(frames, sum(len(one.entity_ids) for one in asked)))
            each = ((plan, entity_id) for plan, one in zip(plans, asked, strict=True) for entity_id in one.entity_ids)
            return fan_out(self._servers, topology, [(plan.key(i), plan.frames([i])) for plan, i in each])

        replies = iter(self._asked(send) if any(one.entity_ids for one in asked) else [])
        now_us, plan_of = to_micros(now), iter(plans)
        found: list[list[dict[str, OnlineValue]]] = []
        for one in reads:
            if one.features:
                read = next(plan_of).values
                mine = islice(replies, len(one.entity_ids))
                found.append([read(cast("list[bytes | None]", reply), now_us) for reply in mine])
            else:
                found.append([{} for _ in one.entity_ids])
        return found

    def stored(self, view: FeatureView) -> Iterator[Sequence[StoredOrder]]:
        prefix, name = self._keys.entity_prefix(view.entity.name), order_field(view.name, view.version)
        for node in self._servers.topology(fresh=True).nodes:
            for wire, keys in _scan(node, prefix):
                orders = wire.pipeline([("HGET", key, name) for key in keys])
                found = zip(keys, cast("list[bytes | None]", orders), strict=True)
                if piece := [StoredOrder(key[len(prefix) : -1].decode(), order) for key, order in found if order]:
                    yield piece

    def replace(self, view: FeatureView, orders: Mapping[str, bytes], rows: pa.Table) -> int:
        prefix, instead = self._keys.entity_prefix(view.entity.name), fields_by_key(view, rows, self._keys)
        name, *others = all_fields(view)
        replaced = 0
        for entity_id, order in orders.items():
            key = entity_key(prefix, entity_id)
            new = [part for field in instead.get(key, {}).items() for part in field]
            topology = self._servers.topology()
            with topology.nodes[topology.place(key)].server.wire() as wire:
                found = wire.run(script(_PACKAGE, "replace.lua"), [key], [name, order, len(others), *others, *new])
            replaced += cast("int", found)
        return replaced

    def forget(self, entity: str, view: str, version: int, features: Sequence[str]) -> None:
        names, entities = fields_of(view, version, features), self._keys.entity_prefix(entity)
        for node in self._servers.topology(fresh=True).nodes:
            for wire, keys in _scan(node, entities):
                wire.pipeline([("HDEL", key, *names) for key in keys])
            for wire, keys in _scan(node, self._keys.positions(view, version, node.mark).encode()):
                wire.pipeline([("DEL", key) for key in keys])

    def active(self) -> Mapping[str, int]:
        key = self._keys.active()
        found = self._asked(lambda topology: _with_key(topology, key, lambda wire: wire.call("HGETALL", key)))
        flat = cast("list[bytes]", found)
        return {view.decode(): int(choice.split()[0]) for view, choice in zip(flat[::2], flat[1::2], strict=True)}

    def activate(self, choices: Sequence[Activation]) -> None:
        key, told = self._keys.active(), script(_PACKAGE, "activate.lua")
        given = [part for one in choices for part in (one.view, one.version, one.commit_seq, one.epoch)]
        self._asked(lambda topology: _with_key(topology, key, lambda wire: wire.run(told, [key], given)))

    def close(self) -> None:
        self._servers.close()

    def _asked(self, call: Callable[[Topology], Result]) -> Result:
        """The result of a call that may be made twice; on a cluster, asked again where things are now."""
        try:
            return call(self._servers.topology())
        except (StoreUnavailableError, MovedSlotsError):
            if not self._servers.is_cluster:
                raise
        return call(self._servers.topology(fresh=True))

    def _push(self, view: FeatureView, rows: pa.Table, commit_seqs: Sequence[int], since: str | None) -> PutCounts:
        """One try, on one connection to each node."""
        topology = self._servers.topology(fresh=True)
        parts = [rows] if len(topology.nodes) == 1 else _parts(view, rows, topology, self._keys)
        counts = PutCounts()
        for node, part in zip(topology.nodes, parts, strict=True):
            counts += self._push_to(node, view, part, commit_seqs, since)
        return counts

    def _push_to(
        self, node: Node, view: FeatureView, rows: pa.Table, commit_seqs: Sequence[int], since: str | None
    ) -> PutCounts:
        counts = PutCounts()
        position, store = self._keys.position(view, node.mark), self._keys.store(node.mark)
        with node.server.wire() as wire:
            epoch = self._begin(node, wire)
            if since is not None and self._named_epoch(node, wire, epoch) not in since.split(","):
                raise self._emptied(node)
            for chunk in encoded(view, rows, self._keys):
                counts += _put(wire, chunk)
            for start in range(0, len(commit_seqs), LINES):
                lines = commit_seqs[start : start + LINES]
                keys = (store, position, f"{position}:above")
                if wire.run(script(_PACKAGE, "mark.lua"), keys, [epoch, *lines]) != 1:
                    raise self._emptied(node)
            if since is not None and wire.call("HGET", store, "epoch") != epoch:
                raise self._emptied(node)
        return counts

    def _epoch(self, node: Node) -> str:
        with node.server.wire() as wire:
            return self._named_epoch(node, wire, self._begin(node, wire))

    def _named_epoch(self, node: Node, wire: Wire, epoch: bytes) -> str:
        """Another one after a restart, too, which may have lost what was not yet in the append-only file."""
        info = cast("bytes", wire.call("INFO", "server"))
        run_id = next(line for line in info.splitlines() if line.startswith(b"run_id:"))
        return f"{node.mark} {epoch.decode()} {run_id.decode()}"

    def _begin(self, node: Node, wire: Wire) -> bytes:
        """Load the script and return the epoch; a Redis that starts from nothing gets a new one."""
        store = self._keys.store(node.mark)
        *_, (found, epoch) = cast(
            "list[tuple[bytes | None, bytes | None]]",
            wire.pipeline(
                [
                    ("SCRIPT", "LOAD", script(_PACKAGE, "newest.lua").text),
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
        return epoch

    def _pushed(self, view: FeatureView, node: Node) -> Pushed:
        position = self._keys.position(view, node.mark)
        with node.server.wire() as wire:
            commands = [("MULTI",), ("GET", position), ("ZRANGE", f"{position}:above", 0, -1), ("EXEC",)]
            settled, above = cast("tuple[bytes | None, list[bytes]]", wire.pipeline(commands)[-1])
        return Pushed(int(settled or 0), frozenset(map(int, above)))

    def _settle(self, view: FeatureView, node: Node, lines: Sequence[int], above: int) -> None:
        position = self._keys.position(view, node.mark)
        keys = (position, f"{position}:above")
        with node.server.wire() as wire:
            settled = int(cast("bytes", wire.call("GET", position) or b"0"))
            if settled < above:
                return
            ahead = [line for line in lines if line > settled]
            base = settled
            for start in range(0, len(ahead), LINES):
                chunk = ahead[start : start + LINES]
                reached = int(cast("bytes", wire.run(script(_PACKAGE, "settle.lua"), keys, [base, *chunk])))
                if reached < chunk[-1]:
                    return
                base = chunk[-1]

    def _emptied(self, node: Node) -> StoreUnavailableError:
        return StoreUnavailableError("Redis", node.server.address, "it was emptied during a push")


def _scan(node: Node, prefix: bytes) -> Iterator[tuple[Wire, list[bytes]]]:
    """The keys that begin so, in pieces, each with a connection to use for them; a key may come twice."""
    cursor = b"0"
    while True:
        with node.server.wire() as wire:
            scan = ("SCAN", cursor, "MATCH", prefix + b"*", "COUNT", SCANNED)
            cursor, keys = cast("tuple[bytes, list[bytes]]", wire.call(*scan))
            if keys:
                yield wire, keys
        if cursor == b"0":
            break


def _with_key(topology: Topology, key: str, call: Callable[[Wire], Reply]) -> Reply:
    """What a call answers on the node that has the key; it may be made twice."""
    with topology.nodes[topology.place(key.encode())].server.wire() as wire:
        return call(wire)


def _parts(view: FeatureView, rows: pa.Table, topology: Topology, keys: Keys) -> list[pa.Table]:
    """The rows of each node."""
    prefix = keys.entity_prefix(view.entity.name)
    ids = cast("list[str]", rows["entity_id"].to_pylist())
    places = np.array([topology.place(entity_key(prefix, entity_id)) for entity_id in ids])
    return [rows.filter(pa.array(places == number)) for number in range(len(topology.nodes))]


def _everywhere(listed: Sequence[Pushed]) -> Pushed:
    """What all nodes list."""
    position = min(one.position for one in listed)
    some = {line for one in listed for line in one.above if line > position}
    return Pushed(position, frozenset(line for line in some if all(line in one for one in listed)))


def _put(wire: Wire, chunk: Encoded) -> PutCounts:
    newest = script(_PACKAGE, "newest.lua")
    data = chunk.frames(newest.sha)
    replies = wire.send(data, chunk.rows)
    if any(isinstance(reply, NoScriptError) for reply in replies):  # SCRIPT FLUSH by someone, just now
        wire.load(newest)
        replies = wire.send(data, chunk.rows)
    written = sum(cast("list[int]", raise_first(replies)))
    return PutCounts(written, chunk.rows - written, long_values=chunk.long_values)
