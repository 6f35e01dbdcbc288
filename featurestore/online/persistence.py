"""What Redis keeps on its disk: written anew, so that it holds nothing of what was removed."""

import threading
from collections.abc import Iterable
from time import monotonic
from typing import cast

from featurestore.errors import SettingsError, TerminalError, TransientError
from featurestore.online.connection import Wire
from featurestore.online.servers import Servers

_WAIT_S, _POLL_S = 600.0, 0.1
_BUSY = ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")


def rewrite_files(urls: Iterable[str], *, timeout_s: float) -> list[str]:
    """Have each Redis write its append-only file, and its snapshot where it makes any, from what it holds now.

    Returns why, for each that does not let us: its files hold what was removed until it writes them anew by itself.

    Raises:
        TransientError: it does not answer, or did not finish.
    """
    refused: list[str] = []
    for url in urls:
        servers = Servers(url, timeout_s=timeout_s)
        try:
            for node in servers.topology(fresh=True).nodes:
                with node.server.wire() as wire:
                    _rewrite(wire, node.server.address)
        except (TerminalError, SettingsError) as error:
            refused.append(str(error))
        finally:
            servers.close()
    return refused


def _rewrite(wire: Wire, address: str) -> None:
    until = monotonic() + _WAIT_S
    _settled(wire, address, until)  # what it writes already may have begun before
    if _persistence(wire)["aof_enabled"] == "1":
        wire.call("BGREWRITEAOF")
        _settled(wire, address, until)
        if _persistence(wire)["aof_last_bgrewrite_status"] != "ok":
            raise TransientError(f"Redis at {address} could not write its append-only file anew; is its disk full?")
    _, save = cast("tuple[bytes, bytes]", wire.call("CONFIG", "GET", "save"))
    if save:
        wire.call("BGSAVE")
        _settled(wire, address, until)


def _settled(wire: Wire, address: str, until: float) -> None:
    waiting = threading.Event()
    while any(_persistence(wire)[name] != "0" for name in _BUSY):
        if monotonic() > until:
            raise TransientError(f"Redis at {address} still writes its files after {_WAIT_S:g} s")
        waiting.wait(_POLL_S)


def _persistence(wire: Wire) -> dict[str, str]:
    lines = cast("bytes", wire.call("INFO", "persistence")).decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)
