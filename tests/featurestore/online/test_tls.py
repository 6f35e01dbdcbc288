"""Redis over TLS, by its address; TLS ends in a proxy, for builds of Redis that have none."""

import select
import socket
import ssl
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from featurestore.errors import StoreUnavailableError
from featurestore.online.redis_store import RedisOnlineStore
from tests.certificates import make_certificates
from tests.featurestore.online.examples import ACTIVITY, FEATURES, NOW, order, row, table

pytestmark = pytest.mark.services

ROWS = table([row(str(n), order(), score=float(n)) for n in range(2_000)])


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("tls"))


@contextmanager
def secured(url: str, certificates: Path) -> Generator[str]:
    """The same Redis, with TLS; yields its address without options."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_OPTIONAL
    target = urlsplit(url)
    stopping = threading.Event()

    def serve(client: socket.socket) -> None:
        with (
            suppress(OSError),
            client,
            context.wrap_socket(client, server_side=True) as secure,
            socket.create_connection((target.hostname or "", target.port or 0)) as plain,
        ):
            other = {secure: plain, plain: secure}
            while not stopping.is_set():
                ready = [secure] if secure.pending() else select.select([secure, plain], [], [], 0.1)[0]
                for one in ready:
                    data = one.recv(65_536)
                    if not data:
                        return
                    other[one].sendall(data)

    def accept(listener: socket.socket) -> None:
        while not stopping.is_set():
            with suppress(TimeoutError):
                threads.append(threading.Thread(target=serve, args=(listener.accept()[0],), name="tls"))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        threads = [threading.Thread(target=accept, args=(listener,), name="tls")]
        threads[0].start()
        try:
            yield f"rediss://:{target.password}@127.0.0.1:{listener.getsockname()[1]}/0"
        finally:
            stopping.set()
            for thread in threads:
                thread.join(10)


def test_values_go_over_tls(redis_url: str, certificates: Path) -> None:
    with secured(redis_url, certificates) as url:
        client = f"ssl_certfile={certificates}/client.pem&ssl_keyfile={certificates}/client.key"
        for options in (f"ssl_ca_certs={certificates}/ca.pem", f"ssl_ca_certs={certificates}/ca.pem&{client}"):
            store = RedisOnlineStore(f"{url}?{options}")
            store.push(ACTIVITY, ROWS, [1])
            found = store.read("user", [str(n) for n in range(2_000)], FEATURES, NOW)
            assert [one["score"].value for one in found] == [float(n) for n in range(2_000)]
            store.close()


def test_a_server_that_nobody_vouches_for_is_refused(redis_url: str, certificates: Path) -> None:
    with secured(redis_url, certificates) as url:
        store = RedisOnlineStore(url)
        with pytest.raises(StoreUnavailableError, match="certificate") as refused:
            store.read("user", ["1"], FEATURES, NOW)
        assert "for-tests" not in str(refused.value)
        store.close()
