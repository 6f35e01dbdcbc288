"""A program of the platform as a value, and what can be said of it from outside."""

import http.client
import os
import re
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from featurestore.errors import TransientError

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
Say = Callable[[str], None]  # takes a line about a step that takes long


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What is started, and how one sees that it answers."""

    name: str
    command: tuple[str, ...]
    answers: Callable[[], bool]  # returns within about a second, whatever the state of the program
    address: str = ""
    ports: tuple[int, ...] = ()  # where it is going to listen, on loopback
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)  # besides the starter's own
    directory: Path | None = None
    ready_within_s: float = 60.0
    stop_within_s: float = 10.0
    outlive_s: float = 0.0  # how long it goes on when its starter is gone, so that those who use it can finish


class NotStartedError(TransientError):
    """A program of the platform ended or stayed silent while it was waited for; carries the end of its log."""

    def __init__(self, name: str, reason: str, log: Path) -> None:
        self.name, self.reason, self.log = name, reason, log
        lines = "".join(f"\n    {line}" for line in last_lines(log, 15))
        super().__init__(f"{name} {reason}; the end of {log}:{lines or ' (nothing)'}")


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a log, read from its end, without colours; a missing one is empty."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 400 * count))
            lines = COLOURS.sub("", file.read().decode(errors="replace")).splitlines()
    except OSError:
        return []
    return lines[-count:] if count else []


def listens(host: str, port: int, timeout_s: float = 0.5) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except OSError:
        return False


def get_http(port: int, path: str) -> tuple[int, bytes]:
    """Status and body that an HTTP server on loopback answers; status 0 when none does."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1.0)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def join_address(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def port_of(address: str) -> int:
    """The port of an address or URL, or the usual one of its scheme; 0 when there is none."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    with suppress(ValueError):  # no number
        return parts.port or {"https": 443, "http": 80, "redis": 6379, "rediss": 6379}.get(parts.scheme, 0)
    return 0


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; only its owner may read it."""
    part = path.with_name(f"{path.name}.part")
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)
    part.replace(path)
