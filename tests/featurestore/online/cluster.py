"""A real Redis Cluster of three masters on loopback."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from featurestore_cli.stack.ports import Ports
from featurestore_cli.stack.redis import answers
from featurestore_cli.stack.runtimes import find_redis_server
from featurestore_cli.stack.service import Program
from tests.services import ENV, eventually, running

SLOTS, MASTERS, PASSWORD = 16_384, 3, "for-tests"
BUS = 10_000  # the port of the nodes among themselves stands so far behind the other


@dataclass(frozen=True)
class Cluster:
    nodes: tuple[redis.Redis, ...]
    ports: tuple[int, ...]

    @property
    def url(self) -> str:
        return f"redis+cluster://:{PASSWORD}@127.0.0.1:{self.ports[0]},127.0.0.1:{self.ports[1]}"

    def node_id(self, number: int) -> str:
        return self.nodes[number].execute_command("CLUSTER MYID").decode()

    def owner(self, slot: int) -> int:
        """Which node serves the slot, by what the first says."""
        for first, last, (_, port, *_), *_ in self.nodes[0].execute_command("CLUSTER SLOTS"):
            if first <= slot <= last:
                return self.ports.index(port)
        raise AssertionError(slot)

    def open_slot(self, slot: int, to: int) -> None:
        """Begin to move a slot: from here on its keys may lie on either node."""
        start = self.owner(slot)
        self.nodes[to].execute_command("CLUSTER SETSLOT", slot, "IMPORTING", self.node_id(start))
        self.nodes[start].execute_command("CLUSTER SETSLOT", slot, "MIGRATING", self.node_id(to))

    def carry_keys(self, slot: int, to: int) -> None:
        source = self.nodes[self.owner(slot)]
        keys = source.execute_command("CLUSTER GETKEYSINSLOT", slot, 1_000)
        if keys:
            words = ("MIGRATE", "127.0.0.1", self.ports[to], "", 0, 5_000, "AUTH", PASSWORD, "KEYS", *keys)
            source.execute_command(*words)

    def close_slot(self, slot: int, to: int) -> None:
        target = self.node_id(to)
        for node in (self.nodes[to], *self.nodes):
            node.execute_command("CLUSTER SETSLOT", slot, "NODE", target)


@contextmanager
def cluster_of_three(home: Path) -> Generator[Cluster]:
    ports: list[int] = []
    source = Ports()
    while len(ports) < MASTERS:
        port = source.take()
        if port + BUS < 65_536:
            ports.append(port)
    with ExitStack() as opened:
        for port in ports:
            opened.enter_context(running(_program(home / str(port), port), home / "logs"))
        nodes = [opened.enter_context(redis.Redis(port=port, password=PASSWORD)) for port in ports]
        for number, node in enumerate(nodes):
            node.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            first, end = number * SLOTS // MASTERS, (number + 1) * SLOTS // MASTERS
            node.execute_command("CLUSTER ADDSLOTS", *range(first, end))
        for port in ports[1:]:
            nodes[0].execute_command("CLUSTER MEET", "127.0.0.1", port)
        eventually(lambda: all(_is_whole(node) for node in nodes), within_s=60)
        yield Cluster(tuple(nodes), tuple(ports))


def _is_whole(node: redis.Redis) -> bool:
    info = node.execute_command("CLUSTER INFO")
    text = str(info)
    return "cluster_state" in text and len(node.execute_command("CLUSTER SLOTS")) == MASTERS and _ok(info)


def _ok(info: object) -> bool:
    return info["cluster_state"] == "ok" if isinstance(info, dict) else b"cluster_state:ok" in info


def _program(home: Path, port: int) -> Program:
    home.mkdir(parents=True)
    words = {
        "port": port, "bind": "127.0.0.1", "dir": home, "requirepass": PASSWORD, "masterauth": PASSWORD, "save": "",
        "cluster-enabled": "yes", "cluster-config-file": "nodes.conf", "cluster-node-timeout": 2_000,
    }  # fmt: skip
    given = [str(part) for key, value in words.items() for part in (f"--{key}", value)]
    return Program(
        name=f"redis-{port}",
        command=(str(find_redis_server(ENV)), *given),
        answers=lambda: answers(f"redis://:{PASSWORD}@127.0.0.1:{port}/0"),
        address=f"127.0.0.1:{port}",
        ports=(port,),
    )
