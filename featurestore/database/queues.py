"""The queues in Redis: their names, and one way to talk to that Redis."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from featurestore.errors import SettingsError, StoreUnavailableError

WAITING_READS = 1000  # queries: so many wait on the list before clients send no more, and so many in the service
REPLY_TTL_S = 60  # how long a reply waits for its reader
_CONNECT_S = 5.0


@dataclass(frozen=True, slots=True)
class Queues:
    """The keys of one namespace."""

    namespace: str = ""

    @property
    def write(self) -> str:
        """Stream of write jobs."""
        return self._name("duckdb_write_queue")

    @property
    def read(self) -> str:
        """List of queries; pushed left, popped right."""
        return self._name("duckdb_read_queue")

    @property
    def dead(self) -> str:
        """Stream of jobs that were refused or failed, with the reason; the oldest ones are dropped."""
        return self._name("duckdb_dead_queue")

    @property
    def attempts(self) -> str:
        """Hash of one job that is being done after a restart: how often it was begun and not finished."""
        return self._name("duckdb_write_queue:attempts")

    @property
    def replies(self) -> str:
        """Prefix of every reply key. The service writes to no other key that a client names."""
        return self._name("duckdb_reply:")

    def _name(self, plain: str) -> str:
        return f"{self.namespace}:{plain}" if self.namespace else plain


def connect(url: str, *, wait_s: float) -> redis.Redis:
    """A thread-safe client for calls that block up to `wait_s`.

    It never repeats a call by itself: whoever reads a queue must know that a reply may have been lost.

    Raises:
        SettingsError: this is no address of one Redis.
    """
    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=wait_s + _CONNECT_S,
            socket_connect_timeout=_CONNECT_S,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
    except ValueError:  # its message may repeat a part of the URL, which may hold the password
        reason = "FEATURESTORE_REDIS_URL, or …_QUEUE_URL, is not an address like redis://[user]:password@host:6379/0"
        raise SettingsError(reason) from None


def empty_queues(url: str, namespace: str) -> None:
    """Remove every job that waits: after a restore they may be of batches that are not there any more.

    Raises:
        StoreUnavailableError: Redis does not answer.
    """
    queues, client = Queues(namespace), connect(url, wait_s=1.0)
    try:
        with redis_errors(client):
            client.delete(queues.write, queues.read, queues.attempts)
    finally:
        client.close()


@contextmanager
def redis_errors(client: redis.Redis) -> Generator[None]:
    """Raise what passes by itself (no connection, loading, read-only, full) as StoreUnavailableError."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError, redis.OutOfMemoryError) as error:
        where = client.connection_pool.connection_kwargs
        raise StoreUnavailableError("Redis", f"{where.get('host')}:{where.get('port')}", str(error)) from error
