"""One read from several servers: everything is sent before anything is awaited, so it takes one round trip."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from redis.exceptions import AskError, MovedError, ResponseError

from featurestore.online.connection import Reply
from featurestore.online.servers import Servers, Topology


def fan_out(servers: Servers, topology: Topology, frames: Sequence[tuple[bytes, bytes]]) -> list[Reply]:
    """The reply to each (key, command of that key), in order; the first error among them is raised.

    Raises:
        MovedSlotsError: the topology is an old one.
    """
    by_node = _by_node(topology, frames)
    replies: list[Reply] = [None] * len(frames)
    with ExitStack() as opened:
        # In the order of the nodes, so that two callers never wait for each other's connections. No reply is looked
        # at in here: an error must not leave others unread on a connection that is used again.
        asked = [(opened.enter_context(topology.nodes[at].server.wire()), by_node[at]) for at in sorted(by_node)]
        for wire, numbers in asked:
            wire.post(b"".join([frames[number][1] for number in numbers]))
        for wire, numbers in asked:
            for number, reply in zip(numbers, wire.collect(len(numbers)), strict=True):
                replies[number] = reply
    for number, reply in enumerate(replies):
        if isinstance(reply, AskError) and not isinstance(reply, MovedError):  # this key is on its way
            replies[number] = reply = servers.followed(reply, frames[number][1])
        if isinstance(reply, ResponseError):
            raise topology.nodes[topology.place(frames[number][0])].server.explained(reply) from reply
    return replies


async def fan_out_async(topology: Topology, frames: Sequence[tuple[bytes, bytes]]) -> list[Reply]:
    """As `fan_out`, awaited. Raises what AsyncServer.ask does, for keys on the move as well."""
    by_node = _by_node(topology, frames)
    asked = [
        topology.nodes[at].server.awaited.ask(b"".join([frames[number][1] for number in numbers]), len(numbers))
        for at, numbers in by_node.items()
    ]
    replies: list[Reply] = [None] * len(frames)
    for numbers, answered in zip(by_node.values(), await asyncio.gather(*asked), strict=True):
        for number, reply in zip(numbers, answered, strict=True):
            replies[number] = reply
    return replies


def _by_node(topology: Topology, frames: Sequence[tuple[bytes, bytes]]) -> Mapping[int, list[int]]:
    """Which of the frames each node is asked."""
    found: dict[int, list[int]] = {}
    for number, (key, _) in enumerate(frames):
        found.setdefault(topology.place(key), []).append(number)
    return found
