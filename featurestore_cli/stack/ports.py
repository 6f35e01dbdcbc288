"""Ports on loopback."""

import errno
import random
import socket
import threading

LOOPBACK = ("127.0.0.1", "::1")
RANGE = range(20_000, 32_000)  # below the range from which the kernel takes the ports of outgoing connections


def is_free(port: int, hosts: tuple[str, ...] = LOOPBACK) -> bool:
    """Whether a program could listen there now; an address family that the machine lacks is no obstacle."""
    return all(_free_at(host, port) for host in hosts)


class Ports:
    """Gives each port away once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: set[int] = set()

    def take(self, *preferred: int) -> int:
        """The first of `preferred` that is free on both loopback addresses, else any free one; 0 is no preference."""
        with self._lock:
            for port in (*preferred, *random.sample(RANGE, 200)):
                if port and port not in self._taken and is_free(port):
                    self._taken.add(port)
                    return port
        raise OSError(errno.EADDRINUSE, "no free port found on 127.0.0.1 and ::1")


def _free_at(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As servers do: connections of a server that has just ended (TIME_WAIT) do not hold its port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return error.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}
    return True
