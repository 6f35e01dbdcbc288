"""A Redis of the platform's own, and what can be asked of any."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import redis

from featurestore.errors import FeatureStoreError, StoreUnavailableError
from featurestore.online.servers import Servers
from featurestore_cli.stack.runtimes import find_redis_server
from featurestore_cli.stack.service import Program, write_private

DEFAULT_PORT = 6379
MARKER = "featurestore:platform"  # holds the id of the data directory to which this Redis belongs
TIMEOUT_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisServer:
    """Append-only file, no eviction, loopback, a password; its data and configuration in `home`."""

    home: Path
    port: int
    password: str = field(repr=False)

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def program(self, env: Mapping[str, str]) -> Program:
        """Write the configuration (the password is not for the list of processes) and say how to start it."""
        server = find_redis_server(env)
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        conf = self.home / "redis.conf"
        write_private(
            conf,
            "bind 127.0.0.1 -::1\n"  # the minus: a machine without IPv6 does without
            f"port {self.port}\n"
            f"requirepass {self.password}\n"
            f'dir "{self.home.absolute()}"\n'
            "appendonly yes\n"
            'save ""\n'
            "maxmemory-policy noeviction\n",
        )
        return Program(
            name="redis",
            command=(str(server), str(conf.absolute())),
            answers=lambda: answers(self.url),
            address=f"127.0.0.1:{self.port}",
            ports=(self.port,),
            ready_within_s=120.0,  # it reads its append-only file first
        )


def answers(url: str) -> bool:
    """Whether a Redis answers there and lets us in; of a cluster, whether all of its masters do."""
    try:
        with closing(Servers(url, timeout_s=TIMEOUT_S)) as servers:
            for node in servers.topology().nodes:
                with node.server.wire() as wire:
                    wire.call("PING")
    except FeatureStoreError:
        return False
    return True


def marked(url: str, platform_id: str) -> bool:
    """Whether the Redis there belongs to this platform; nothing is written."""
    with _client(url) as client:
        try:
            return client.get(MARKER) == platform_id.encode()
        except (redis.RedisError, OSError):
            return False


def mark(url: str, platform_id: str) -> None:
    """Say that this Redis belongs to this platform.

    Raises:
        StoreUnavailableError
    """
    with _client(url) as client:
        try:
            client.set(MARKER, platform_id)
        except (redis.RedisError, OSError) as error:
            raise StoreUnavailableError("Redis", MARKER, str(error)) from error


def _client(url: str) -> "redis.Redis":
    return redis.Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=None)
