"""The HTTP server: uvicorn on a thread of its own, and what it lacks against slow and greedy clients."""

import logging
import resource
import socket
import ssl
import threading
from asyncio import TimerHandle, Transport
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from featurestore.errors import SettingsError, TerminalError
from featurestore.settings import ServerSettings

log = logging.getLogger(__name__)

HEAD_S = 10.0  # within which the head of a request must have come
HEAD_BYTES = 64 * 1024
KEEP_ALIVE_S = 75
UNSENT_S = 30.0  # after which a client that takes nothing is cut off
GRACE_S = 20  # for requests under way when the server drains

_SPARE_FILES = 256  # besides connections: Redis, threads, libraries


class GuardedProtocol(HttpToolsProtocol):
    """Cuts off who does not send the head of a request in time, or sends too much of it; bounds the connections."""

    limit = 0  # set by `guarded`
    _head_timer: TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as the base class has it
        super().connection_made(transport)
        if len(self.connections) > self.limit:
            transport.abort()
            return
        self._await_head()

    def data_received(self, data: bytes) -> None:
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()  # the next request of a connection that was kept
        if self._head_timer is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_timer is not None and self._head_bytes > HEAD_BYTES:
            self._cut_off()

    def on_headers_complete(self) -> None:
        self._forget_head()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(HEAD_S, self._cut_off)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _cut_off(self) -> None:
        self._forget_head()
        if not self.transport.is_closing():
            self.transport.abort()


def guarded(connections: int) -> type[GuardedProtocol]:
    """The protocol with a bound."""
    return type("BoundedProtocol", (GuardedProtocol,), {"limit": connections})


def listen(address: str) -> socket.socket:
    """A bound socket; accepted ones inherit its options.

    Raises:
        SettingsError: it is not an address.
        TerminalError: something else is there.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise SettingsError(f"FEATURESTORE_SERVER_ADDRESS: {address!r} is not host:port")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNSENT_S * 1000))
    try:
        server.bind((host, int(port)))
        server.listen(2048)
    except OSError as error:
        server.close()
        raise TerminalError(f"cannot listen at {address}: {error.strerror}") from error
    return server


def allow_files(connections: int) -> None:
    """Raise the soft limit of open files, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _SPARE_FILES
    if soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        if allowed < wanted:
            log.warning(
                "%d open files are allowed; fewer connections than the %d of the settings", allowed, connections
            )


class HttpServer:
    """Serves an application until it is stopped."""

    def __init__(self, application: ASGIApp, settings: ServerSettings) -> None:
        self._server = uvicorn.Server(_config(application, settings))
        self._thread: threading.Thread | None = None

    def start(self, listener: socket.socket) -> None:
        run: Callable[[], Any] = lambda: self._server.run(sockets=[listener])  # noqa: E731
        self._thread = threading.Thread(target=run, name="http", daemon=True)
        self._thread.start()

    @property
    def runs(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """Take no new connections, finish requests under way within GRACE_S, and end."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(GRACE_S + 5)


def _config(application: ASGIApp, settings: ServerSettings) -> uvicorn.Config:
    is_secured = bool(settings.tls_certificate_path)
    config = uvicorn.Config(
        application,
        http=guarded(settings.max_connections),
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        ssl_certfile=settings.tls_certificate_path or None,
        ssl_keyfile=settings.tls_key_path or None,
        ssl_ca_certs=settings.tls_client_ca_path or None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if settings.tls_client_ca_path else ssl.CERT_NONE,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        if not is_secured:
            raise
        raise SettingsError(f"FEATURESTORE_SERVER_TLS_…_PATH: {error}") from error
    return config
