"""A way to Redis on which something happens in the middle of a write."""

import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class Way:
    """A TCP proxy to Redis; after a number of bytes from the clients it does what it was told, once."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 6379)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        port = self._listener.getsockname()[1]
        self.url = url.replace(f":{self._target[1]}", f":{port}")
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._left = 0
        self._fault: Callable[[], bool] | None = None
        self._threads = [threading.Thread(target=self._accept, name="way")]
        self._threads[0].start()

    def after(self, sent_bytes: int, fault: Callable[[], bool]) -> None:
        """When clients have sent so many bytes more: call `fault`; if it returns True, cut the connection there."""
        with self._lock:
            self._left, self._fault = sent_bytes, fault

    def close(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(5)
        self._listener.close()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                client, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(client,), name="way"))
                self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            back = threading.Thread(target=self._copy, args=(server, client), name="way back")
            back.start()
            with suppress(OSError):
                self._forward(client, server)
            for end in (client, server):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            back.join(5)

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        client.settimeout(0.05)
        while not self._stopping.is_set():
            try:
                data = client.recv(65_536)
            except TimeoutError:
                continue
            if not data:
                return
            with self._lock:
                fault, left = self._fault, self._left
                self._left -= len(data)
                if fault is None or self._left > 0:
                    fault = None
                else:
                    self._fault = None
            if fault is None:
                server.sendall(data)
            else:
                server.sendall(data[:left])
                if fault():
                    return
                server.sendall(data[left:])

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)


@contextmanager
def way_to(url: str) -> Generator[Way]:
    way = Way(url)
    try:
        yield way
    finally:
        way.close()
