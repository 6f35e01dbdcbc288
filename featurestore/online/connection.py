"""One connection to Redis at a time, with hand-built frames, errors that say what to do, and no silent reconnect."""

import os
import re
import threading
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha1
from importlib.resources import files
from time import monotonic
from typing import cast

from redis import exceptions as redis_errors
from redis.backoff import NoBackoff
from redis.connection import Connection, ConnectionPool
from redis.retry import Retry

from featurestore.errors import SettingsError, StoreUnavailableError, TerminalError, TransientError
from featurestore.online.async_connection import AsyncServer

Argument = bytes | str | int
Reply = object  # bytes, int, None, a list of these, or a ResponseError in its place in a pipeline's replies

PACKAGE = "featurestore.online"  # where the scripts lie

MAX_CONNECTIONS = 64  # of one process; whoever comes when all are taken waits up to the timeout
IDLE_S = 1.0  # a connection that was idle for longer may have been closed by the server

# Replies of a server that is there and cannot now: later may be better.
# Scripts carry them in the middle of their own.
_PASSING = re.compile(r"\b(OOM|MISCONF|READONLY|BUSY|TRYAGAIN|CLUSTERDOWN|MASTERDOWN|NOREPLICAS) ")


class MovedSlotsError(TransientError):
    """A cluster has moved keys to another node, or is about to; whoever asks again asks where they are first."""


class Script:
    """A Lua script of a package, called by digest and loaded where it is not known."""

    def __init__(self, package: str, name: str) -> None:
        self.text = files(package).joinpath(name).read_bytes()
        self.sha = sha1(self.text, usedforsecurity=False).hexdigest().encode()

    def command(self, keys: Sequence[Argument], arguments: Sequence[Argument]) -> tuple[Argument, ...]:
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)


@cache
def script(package: str, name: str) -> Script:
    """Read a script once per process."""
    return Script(package, name)


class Wire:
    """A connection that is used by one caller; what is sent on it is executed in order or not at all.

    After an error nothing more can be done with it: it never connects again by itself, so that what a caller writes
    and then claims to have written goes the same way.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def call(self, *command: Argument) -> Reply:
        """Send one command and return its reply; an error reply is raised."""
        return self.pipeline([command])[0]

    def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        """Send commands together and return their replies; the first error reply is raised when all are read."""
        self._connection.send_packed_command(self._connection.pack_commands(commands), check_health=False)
        return raise_first(self.collect(len(commands)))

    def send(self, frames: bytes | memoryview, replies: int) -> list[Reply]:
        """Send commands in the protocol's own bytes and return their replies, error replies included."""
        self.post(frames)
        return self.collect(replies)

    def post(self, frames: bytes | memoryview) -> None:
        """Send commands; their replies have to be collected before anything else is sent."""
        self._connection.send_packed_command([frames], check_health=False)

    def run(self, script: Script, keys: Sequence[Argument], arguments: Sequence[Argument]) -> Reply:
        """Run a script, loading it if the server does not know it."""
        try:
            return self.call(*script.command(keys, arguments))
        except redis_errors.NoScriptError:
            self.load(script)
            return self.call(*script.command(keys, arguments))

    def load(self, script: Script) -> None:
        self.call("SCRIPT", "LOAD", script.text)

    def collect(self, count: int) -> list[Reply]:
        """The replies to what was posted, error replies included."""
        replies: list[Reply] = []
        read = self._connection.read_response
        for _ in range(count):
            try:
                replies.append(read())
            except redis_errors.ResponseError as error:
                replies.append(error)
        return replies


def raise_first(replies: list[Reply]) -> list[Reply]:
    """Raise the first error reply, if there is one."""
    for reply in replies:
        if isinstance(reply, redis_errors.ResponseError):
            raise reply
    return replies


class RedisServer:
    """A bounded pool of connections to one server; thread-safe, and usable after a fork.

    Lighter than the client library's own pool, which takes as long as the read of an entity: a connection is looked
    at before use only if it has been idle for a while.
    """

    def __init__(self, url: str, *, timeout_s: float = 5.0) -> None:
        try:
            self._factory = ConnectionPool.from_url(
                url,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 0),
                client_name="featurestore",
                protocol=2,
            )
        except ValueError:  # its message may repeat a part of the URL, which may hold the password
            reason = "FEATURESTORE_REDIS_URL is not an address like redis://[user]:password@host:6379/0"
            raise SettingsError(reason) from None
        self.awaited = AsyncServer(url, timeout_s=timeout_s)
        self._timeout_s = timeout_s
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._idle: deque[tuple[Connection, float]] = deque()

    @property
    def address(self) -> str:
        """host:port or the socket's path, never the credentials."""
        given = self._factory.connection_kwargs
        return given.get("path") or f"{given.get('host', 'localhost')}:{given.get('port', 6379)}"

    @contextmanager
    def wire(self) -> Generator[Wire]:
        """Take a connection; it goes back to the pool only if all replies were read.

        Raises:
            StoreUnavailableError: the server does not answer, or stopped answering.
            SettingsError: it refuses the credentials.
            TransientError: it is there and refuses the command for now (out of memory, loading, read-only).
            TerminalError: it refuses the command.
        """
        if not self._places.acquire(timeout=self._timeout_s):
            raise StoreUnavailableError("Redis", self.address, f"all {MAX_CONNECTIONS} connections are in use")
        try:
            connection, whole = self._connected(), False
            try:
                yield Wire(connection)
                whole = True
            except redis_errors.ResponseError:
                whole = True  # raised after all replies were read
                raise
            finally:
                if whole:
                    self._idle.append((connection, monotonic()))
                else:
                    connection.disconnect()
        except redis_errors.RedisError as error:
            if isinstance(error, redis_errors.ConnectionError):
                self._drop_idle()  # what has ended one has ended the others
            raise self.explained(error) from error
        finally:
            self._places.release()

    def close(self) -> None:
        """Close the idle connections; one in use goes back and is closed when this is collected."""
        self._drop_idle()
        self.awaited.close()

    def _drop_idle(self) -> None:
        while self._idle:
            with suppress(IndexError):  # taken by another thread
                self._idle.pop()[0].disconnect()

    def _connected(self) -> Connection:
        """The connection that was used last, or a new one."""
        while self._idle:
            try:
                connection, used = self._idle.pop()
            except IndexError:  # taken by another thread
                break
            if connection.pid == os.getpid() and (monotonic() - used < IDLE_S or _is_usable(connection)):
                return connection
            connection.disconnect()
        connection = cast("Connection", self._factory.make_connection())
        connection.connect()
        return connection

    def explained(self, error: redis_errors.RedisError) -> Exception:
        """The same as an error of ours, which says what to do."""
        text = str(error)
        if isinstance(error, redis_errors.AskError):
            return MovedSlotsError(f"the cluster of Redis at {self.address} is moving keys ({text}); try again")
        if isinstance(error, redis_errors.AuthenticationError | redis_errors.NoPermissionError):
            return SettingsError(
                f"Redis at {self.address} refuses the user or password of FEATURESTORE_REDIS_URL: {text}"
            )
        if isinstance(error, redis_errors.ConnectionError | redis_errors.TimeoutError):
            return StoreUnavailableError("Redis", self.address, text)
        if isinstance(error, redis_errors.OutOfMemoryError | redis_errors.ReadOnlyError) or _PASSING.search(text):
            return TransientError(f"Redis at {self.address} refuses to write for now: {text}")
        return TerminalError(f"Redis at {self.address} refuses a command: {text}")


def _is_usable(connection: Connection) -> bool:
    """Nothing came while it was idle, not even the end."""
    try:
        return not connection.can_read()
    except redis_errors.ConnectionError:
        return False
