"""One connection per event loop and server, shared by whoever awaits: replies come in the order of the commands."""

import asyncio
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import Any, cast

from redis import exceptions as redis_errors
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

Replies = list[object]


class UnansweredError(Exception):
    """The connection broke, or the server refused a command; the blocking way finds out and says why."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Somebody who awaits `count` replies."""

    answered: "asyncio.Future[Replies]"
    count: int
    replies: Replies = field(default_factory=list[object])


class AsyncServer:
    """Reads from one server; usable from any event loop, each of which gets a connection of its own."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._factory = ConnectionPool.from_url(
            url, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0), client_name="featurestore", protocol=2
        )
        self._timeout_s = timeout_s
        self._lines: dict[asyncio.AbstractEventLoop, _Line] = {}
        self._lock = threading.Lock()

    async def ask(self, frames: bytes, count: int) -> Replies:
        """Send commands in the protocol's own bytes and await their replies.

        Raises:
            UnansweredError: ask the blocking way.
            TimeoutError: the server does not answer in time.
        """
        line = self._lines.get(asyncio.get_running_loop())
        if line is None or line.is_over:
            line = self._new_line()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await line.ask(frames, count)
        except TimeoutError:
            line.end(TimeoutError)  # what it still owes others would be too late as well
            raise

    def close(self) -> None:
        """End the connections; those of a loop in another thread end as soon as it comes to it."""
        with self._lock:
            lines = list(self._lines.items())
        for loop, line in lines:
            with suppress(RuntimeError):  # the loop has ended, and the connection with it
                loop.call_soon_threadsafe(line.end, UnansweredError)

    def _new_line(self) -> "_Line":
        """Of the running loop; those of loops that have ended are forgotten, as are their connections."""
        line = _Line(cast("AbstractConnection", self._factory.make_connection()))
        with self._lock:
            for loop in [loop for loop in self._lines if loop.is_closed()]:
                del self._lines[loop]
            self._lines[asyncio.get_running_loop()] = line
        return line


class _Line:
    """A connection, and who awaits what on it."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection: Any = connection  # the stubs do not know that a number of seconds may be infinite
        self._waiting: deque[_Waiting] = deque()
        self._receiver = asyncio.create_task(self._receive())
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended_by: type[Exception] = UnansweredError

    @property
    def is_over(self) -> bool:
        return self._receiver.done()

    def end(self, why: type[Exception]) -> None:
        self._ended_by = why
        self._receiver.cancel()

    async def ask(self, frames: bytes, count: int) -> Replies:
        if not self._opened.done():
            await asyncio.shield(self._opened)
        if self.is_over:
            raise self._ended_by()
        one = _Waiting(asyncio.get_running_loop().create_future(), count)
        self._waiting.append(one)  # and sent before anybody else's turn comes
        try:
            await self._connection.send_packed_command([frames], check_health=False)
        except BaseException as error:
            one.answered.cancel()
            if isinstance(error, redis_errors.RedisError | OSError):
                raise UnansweredError from error
            raise
        return await one.answered

    async def _receive(self) -> None:
        """Connect, then hand out replies until the connection ends."""
        try:
            await self._connection.connect()
            self._opened.set_result(None)
            while True:
                self._hand_out(await self._reply())
        except (redis_errors.RedisError, OSError):
            pass
        finally:
            if not self._opened.done():
                self._opened.set_result(None)
            for one in self._waiting:
                _fail(one, self._ended_by)
            await self._connection.disconnect(nowait=True)

    async def _reply(self) -> object:
        try:
            return await self._connection.read_response(timeout=inf)
        except redis_errors.ResponseError as error:
            return error

    def _hand_out(self, reply: object) -> None:
        one = self._waiting[0]
        one.replies.append(reply)
        if len(one.replies) == one.count:
            self._waiting.popleft()
            if any(isinstance(reply, redis_errors.ResponseError) for reply in one.replies):
                _fail(one, UnansweredError)
            elif not one.answered.done():
                one.answered.set_result(one.replies)


def _fail(one: _Waiting, why: type[Exception]) -> None:
    if not one.answered.done():
        one.answered.set_exception(why())
