"""Which Redis has a key: the one there is, or one of the masters of a cluster."""

import threading
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from redis.crc import key_slot
from redis.exceptions import AskError

from featurestore.entity_id import hash64
from featurestore.errors import SettingsError, StoreUnavailableError
from featurestore.online.connection import RedisServer, Reply, Wire

SLOTS = 16_384
CLUSTER = "+cluster"
SCANNED = 1_000  # keys looked at in one step

_ASKING = b"*1\r\n$6\r\nASKING\r\n"


@dataclass(frozen=True, slots=True)
class Node:
    """A server, and what the names of its own keys contain, so that they lie there."""

    server: RedisServer
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Topology:
    """Which node has which slot, at some moment; with one node, that one has everything."""

    nodes: tuple[Node, ...]
    owner: Sequence[int] = ()  # slot → position in `nodes`

    @property
    def address(self) -> str:
        """For a message."""
        return ", ".join(node.server.address for node in self.nodes)

    def place(self, key: bytes) -> int:
        return self.owner[key_slot(key)] if self.owner else 0


class Servers:
    """One server by `redis://…`, or a cluster by `redis+cluster://[user:password@]host:port,host:port…`."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        scheme = url.partition("://")[0]
        self.is_cluster = scheme.endswith(CLUSTER)
        self._by_address: dict[str, RedisServer] = {}
        self._topology: Topology | None = None
        if not self.is_cluster:
            self._topology = Topology((Node(RedisServer(url, timeout_s=timeout_s)),))
            return
        self._url = _ClusterUrl.of(url)
        for seed in self._url.seeds:
            self._server(seed)

    @property
    def known(self) -> Topology | None:
        """The nodes as they were when last asked; None while a cluster has not been."""
        return self._topology

    def topology(self, *, fresh: bool = False) -> Topology:
        """The nodes; `fresh` asks the cluster again.

        Raises:
            StoreUnavailableError: no node of the cluster answers, or some slots have no master.
        """
        known = self._topology
        if known is not None and not (fresh and self.is_cluster):
            return known
        with self._lock:
            self._topology = found = self._ask_around()
        return found

    def followed(self, asked: AskError, frame: bytes) -> Reply:
        """The reply of the node to which a slot is being moved."""
        server = self._server(f"{asked.host}:{asked.port}")
        with server.wire() as wire:
            return wire.send(_ASKING + frame, 2)[1]

    def close(self) -> None:
        single = () if self._topology is None else tuple(node.server for node in self._topology.nodes)
        for server in {*self._by_address.values(), *single}:
            server.close()

    def _server(self, address: str) -> RedisServer:
        server = self._by_address.get(address)
        if server is None:
            server = self._by_address[address] = RedisServer(self._url.at(address), timeout_s=self._timeout_s)
        return server

    def _ask_around(self) -> Topology:
        """What the first node that answers says."""
        failed: StoreUnavailableError | None = None
        for address in dict.fromkeys([*self._by_address, *self._url.seeds]):
            try:
                with self._server(address).wire() as wire:
                    return self._read(wire, address)
            except StoreUnavailableError as error:
                failed = error
        assert failed is not None  # there is at least one seed
        raise failed

    def _read(self, wire: Wire, asked: str) -> Topology:
        ranges = cast("list[tuple[int, int, tuple[bytes, int, bytes]]]", wire.call("CLUSTER", "SLOTS"))
        by_master: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for first, last, (host, port, node_id, *_), *_ in ranges:
            address = f"{host.decode() or asked.rpartition(':')[0]}:{port}"
            by_master.setdefault((address, node_id.decode()), []).append((first, last))
        owner = array("i", [-1] * SLOTS)
        nodes: list[Node] = []
        for (address, node_id), slots in sorted(by_master.items()):
            for first, last in slots:
                for slot in range(first, last + 1):
                    owner[slot] = len(nodes)
            nodes.append(Node(self._server(address), _mark(node_id, slots)))
        if -1 in owner:
            reason = f"slot {owner.index(-1)} of the cluster has no master"
            raise StoreUnavailableError("Redis", asked, reason)
        return Topology(tuple(nodes), owner)


def _mark(node_id: str, slots: Sequence[tuple[int, int]]) -> str:
    """A hash tag that lies on the node, and is another one as soon as node or slots are others.

    So what is known of a node is forgotten after a failover or resharding: which values were lost with it is not known.
    """
    held = sorted(slots)
    digest = f"{hash64(f'{node_id} {held}'):016x}"
    for number in range(100 * SLOTS):
        mark = f"{digest}.{number}"
        slot = key_slot(mark.encode())
        if any(first <= slot <= last for first, last in held):
            return mark
    raise AssertionError("some text of so many lies in any slot")


@dataclass(frozen=True, slots=True)
class _ClusterUrl:
    """The address of a cluster, and of any of its nodes."""

    before: str  # the scheme and the credentials
    seeds: tuple[str, ...]
    after: str

    @classmethod
    def of(cls, url: str) -> "_ClusterUrl":
        parts = urlsplit(url)
        credentials, at, hosts = parts.netloc.rpartition("@")
        seeds = tuple(one if one.rpartition(":")[2].isdigit() else f"{one}:6379" for one in hosts.split(",") if one)
        if (
            parts.scheme not in {f"redis{CLUSTER}", f"rediss{CLUSTER}"}
            or not seeds
            or parts.path not in {"", "/", "/0"}
        ):
            raise SettingsError(
                "FEATURESTORE_REDIS_URL is not an address like redis+cluster://[user]:password@host:6379,host:6380"
            )
        scheme = parts.scheme.removesuffix(CLUSTER)
        return cls(f"{scheme}://{credentials}{at}", seeds, f"/0?{parts.query}" if parts.query else "/0")

    def at(self, address: str) -> str:
        host, _, port = address.rpartition(":")
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        return f"{self.before}{host}:{port}{self.after}"


def scan(node: Node, pattern: bytes) -> Iterator[list[bytes]]:
    """The keys of a pattern, some at a time; a key may come twice."""
    cursor = b"0"
    while True:
        with node.server.wire() as wire:
            scan = ("SCAN", cursor, "MATCH", pattern, "COUNT", SCANNED)
            cursor, keys = cast("tuple[bytes, list[bytes]]", wire.call(*scan))
        if keys:
            yield keys
        if cursor == b"0":
            break
