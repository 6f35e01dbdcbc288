"""Reads of Redis in one round trip, blocking or awaited; from a replica while the server itself does not answer."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from time import monotonic
from typing import TypeVar, cast

from redis.exceptions import ConnectionError as RedisConnectionError

from featurestore.errors import StoreUnavailableError
from featurestore.online.async_connection import Replies, UnansweredError
from featurestore.online.connection import MovedSlotsError, raise_first
from featurestore.online.fan_out import fan_out, fan_out_async
from featurestore.online.reader import Plans, ReadPlan, to_micros
from featurestore.online.servers import Servers, Topology
from featurestore.online.store import Read
from featurestore.online.values import OnlineValue

log = logging.getLogger(__name__)

PAUSE_S = 1.0  # for which a server that did not answer is not asked, where a replica is

Result = TypeVar("Result")
Answers = list[list[dict[str, OnlineValue]]]


class RedisReads:
    """Reads of a store; thread-safe, and usable from any event loop."""

    def __init__(self, servers: Servers, replica: Servers | None, plans: Plans) -> None:
        self._servers, self._replica, self._plans = servers, replica, plans
        self._down_until = 0.0

    def read_all(self, reads: Sequence[Read], now: datetime) -> Answers:
        asked = _Asked(self._plans, reads)
        return asked.answers(self._replies(asked) if asked.is_any else [], now)

    async def read_all_async(self, reads: Sequence[Read], now: datetime) -> Answers:
        """As `read_all`. What is out of the ordinary is done the blocking way, on a thread."""
        asked = _Asked(self._plans, reads)
        if not asked.is_any:
            return asked.answers([], now)
        topology = self._servers.known
        if topology is None or monotonic() < self._down_until:
            return await asyncio.to_thread(self.read_all, reads, now)
        try:
            return asked.answers(await asked.send_async(topology), now)
        except UnansweredError:
            return await asyncio.to_thread(self.read_all, reads, now)
        except TimeoutError as error:
            if self._replica is not None:
                self._down_until = monotonic() + PAUSE_S
                return await asyncio.to_thread(self.read_all, reads, now)
            raise StoreUnavailableError("Redis", topology.address, "no answer in time") from error

    def asked(self, call: Callable[[Topology], Result]) -> Result:
        """The result of a call that may be made twice: on a cluster, asked again where things are now."""
        try:
            return call(self._servers.topology())
        except MovedSlotsError:
            pass
        except StoreUnavailableError as error:
            # A connection of the pool may be from before a restart; one that is new is not.
            if not (self._servers.is_cluster or isinstance(error.__cause__, RedisConnectionError)):
                raise
        return call(self._servers.topology(fresh=True))

    def _replies(self, asked: "_Asked") -> Replies:
        if self._replica is None:
            return self.asked(lambda topology: asked.send(self._servers, topology))
        if monotonic() >= self._down_until:
            try:
                return self.asked(lambda topology: asked.send(self._servers, topology))
            except StoreUnavailableError as error:
                log.warning("%s; reading from the replica, which may be behind", error)
                self._down_until = monotonic() + PAUSE_S
        return asked.send(self._replica, self._replica.topology())


class _Asked:
    """The commands of some reads, and what their replies mean."""

    def __init__(self, plans: Plans, reads: Sequence[Read]) -> None:
        self._reads = reads
        self._each = [(plans.plan(one.entity, one.features), one) for one in reads if one.features]

    @property
    def is_any(self) -> bool:
        return any(one.entity_ids for _, one in self._each)

    def send(self, servers: Servers, topology: Topology) -> Replies:
        if topology.owner:
            return fan_out(servers, topology, self._keyed())
        frames = self._frames()
        with topology.nodes[0].server.wire() as wire:
            return raise_first(wire.send(b"".join(frames), len(frames)))

    async def send_async(self, topology: Topology) -> Replies:
        if topology.owner:
            return await fan_out_async(topology, self._keyed())
        frames = self._frames()
        return await topology.nodes[0].server.awaited.ask(b"".join(frames), len(frames))

    def answers(self, replies: Replies, now: datetime) -> Answers:
        each, plan_of = cast("Iterator[list[bytes | None]]", iter(replies)), iter(self._plans())
        now_us = to_micros(now)
        found: Answers = []
        for one in self._reads:
            if one.features:
                read = next(plan_of).values
                found.append([read(each, now_us) for _ in one.entity_ids])
            else:
                found.append([{} for _ in one.entity_ids])
        return found

    def _plans(self) -> list[ReadPlan]:
        return [plan for plan, _ in self._each]

    def _frames(self) -> list[bytes]:
        return [c for plan, one in self._each for entity_id in one.entity_ids for c in plan.commands(entity_id)]

    def _keyed(self) -> list[tuple[bytes, bytes]]:
        keyed = ((plan, plan.key(entity_id), entity_id) for plan, one in self._each for entity_id in one.entity_ids)
        return [(key, c) for plan, key, entity_id in keyed for c in plan.commands(entity_id)]
