"""An online store with nothing in it, and no job on its way: before a restore, after which Redis may be ahead."""

from collections.abc import Iterator
from typing import cast

from featurestore.online.connection import Wire
from featurestore.online.keys import Keys
from featurestore.online.servers import Servers
from featurestore.settings import RedisSettings

_SCANNED = 1_000  # keys looked at in one step


def empty_online(settings: RedisSettings, namespace: str) -> int:
    """Remove every value, and the lists of what was pushed; returns how many keys.

    Raises:
        StoreUnavailableError: Redis does not answer; some may be gone.
    """
    servers = Servers(settings.url, timeout_s=settings.timeout_s)
    try:
        removed = 0
        for node in servers.topology(fresh=True).nodes:
            with node.server.wire() as wire:
                for key in _found(wire, Keys(namespace).everything):
                    removed += cast("int", wire.call("UNLINK", key))
        return removed
    finally:
        servers.close()


def _found(wire: Wire, pattern: str) -> Iterator[bytes]:
    cursor = b"0"
    while True:
        cursor, keys = cast("tuple[bytes, list[bytes]]", wire.call("SCAN", cursor, "MATCH", pattern, "COUNT", _SCANNED))
        yield from keys
        if cursor == b"0":
            return
