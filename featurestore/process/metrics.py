"""/metrics and /health of a process, over HTTP on loopback."""

import json
import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from featurestore.process.health import Health

log = logging.getLogger(__name__)


@contextmanager
def serve(port: int, registry: CollectorRegistry, health: Health) -> Generator[int]:
    """Serve while the context is open; yields the port, or 0 where port 0 asks for no server."""
    if port == 0:
        yield 0
        return
    server = ThreadingHTTPServer(("127.0.0.1", port), _handler(registry, health))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.5}, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def _handler(registry: CollectorRegistry, health: Health) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # of a slow client, seconds

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._reply(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            elif self.path == "/health":
                state, note = health.snapshot()
                body = json.dumps({"state": state, "note": note}).encode()
                self._reply(200 if state == "ready" else 503, "application/json", body)
            else:
                self._reply(404, "text/plain", b"there is /metrics and /health\n")

        def _reply(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # named by the base class
            log.debug(format, *args)

    return Handler
