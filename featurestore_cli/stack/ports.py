"""Ports on loopback: which are free, who has the others."""

import errno
import os
import random
import socket
import threading
import weakref

import psutil

LOOPBACK = ("127.0.0.1", "::1")
RANGE = range(20_000, 32_000)  # below the range from which the kernel takes the ports of outgoing connections


class Ports:
    """Gives each port away once, on the whole machine.

    A program may start to listen long after its port was chosen, and meanwhile another `up` must not choose the same.
    So for each port a name in the kernel's abstract namespace is held, until `close` or as long as this object lives;
    it is free again however its process ends.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[int] = []
        self.close = weakref.finalize(self, _close, self._held)

    def take(self, *preferred: int) -> int:
        """The first of `preferred` that is free on both loopback addresses, else any free one; 0 is no preference."""
        with self._lock:
            for port in (*preferred, *random.sample(RANGE, 200)):
                if port and self._hold(port):
                    return port
        raise OSError(errno.EADDRINUSE, "no free port found on 127.0.0.1 and ::1")

    def _hold(self, port: int) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as name:
            try:
                name.bind(f"\0featurestore-port-{port}")
            except OSError:
                return False
            if not is_free(port):
                return False
            self._held.append(name.detach())
        return True


def is_free(port: int, hosts: tuple[str, ...] = LOOPBACK) -> bool:
    """Whether a program could listen there now; an address family that the machine lacks is no obstacle."""
    return all(_free_at(host, port) for host in hosts)


def listener(port: int) -> psutil.Process | None:
    """The process that listens there, if this user may know it."""
    for one in psutil.net_connections(kind="tcp"):
        if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port and one.pid:
            try:
                return psutil.Process(one.pid)
            except psutil.NoSuchProcess:
                continue
    return None


def describe_listener(port: int) -> str:
    """Who listens there, in words."""
    process = listener(port)
    try:
        return f"{process.name()} (process {process.pid})" if process else "a process of another user"
    except psutil.NoSuchProcess:
        return "a process that has just ended"


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


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)
