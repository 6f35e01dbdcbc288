"""Settings of the server that do not go together, and TLS."""

import http.client
import json
import re
import socket
import ssl
from pathlib import Path

import grpc
import pytest
from prometheus_client import CollectorRegistry

from featurestore.errors import SettingsError, TerminalError
from featurestore.process.health import Health
from featurestore_serving.pb import serving_pb2 as pb
from featurestore_serving.pb import serving_pb2_grpc as pb_grpc
from featurestore_serving.server import FeatureServer
from tests.certificates import make_certificates
from tests.featurestore_serving.platform import PROJECT, running, settings

pytestmark = pytest.mark.services

BODY = json.dumps({"features": ["activity"], "keys": {"user_id": [1]}}).encode()


# ---- settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tls_certificate_path": "a.pem"}, "go together"),
        ({"tls_client_ca_path": "a.pem"}, "needs FEATURESTORE_SERVER_TLS_CERTIFICATE_PATH"),
        ({"tls_certificate_path": "no.pem", "tls_key_path": "no.pem"}, "TLS_…_PATH"),
        ({"threads": 0}, "FEATURESTORE_SERVER_THREADS is at least 1"),
        ({"address": "8080"}, "is not host:port"),
    ],
)
def test_settings_that_do_not_go_together_are_named(data: Path, given: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        started(data, **given)


def test_an_address_that_is_taken(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(TerminalError, match="cannot listen at"):
        started(data, address=f"127.0.0.1:{taken.getsockname()[1]}")


def started(data: Path, **given: object) -> None:
    given_settings = settings("redis://127.0.0.1:1", data, **given)
    service = FeatureServer(given_settings, PROJECT, health=Health(), registry=CollectorRegistry())
    try:
        service.start()
    finally:
        service.stop()


# ---- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("mutual", [False, True])
def test_tls_on_both_transports(filled: str, data: Path, certificates: Path, mutual: bool) -> None:
    def at(name: str) -> str:
        return str(certificates / name)

    ca = {"tls_client_ca_path": at("ca.pem")} if mutual else {}
    paths = {"tls_certificate_path": at("server.pem"), "tls_key_path": at("server.key"), **ca}
    with running(settings(filled, data, **paths)) as server:
        stranger = ssl.create_default_context(cafile=at("ca.pem"))
        known = ssl.create_default_context(cafile=at("ca.pem"))
        known.load_cert_chain(at("client.pem"), at("client.key"))
        assert https(server.port, known) == 200
        if mutual:
            with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
                https(server.port, stranger)
        else:
            assert https(server.port, stranger) == 200
        pair = (Path(at("client.key")).read_bytes(), Path(at("client.pem")).read_bytes())
        root = Path(at("ca.pem")).read_bytes()
        credentials = grpc.ssl_channel_credentials(root, *pair)
        with grpc.secure_channel(f"localhost:{server.service.grpc_port}", credentials) as channel:
            column = pb.KeyColumn(integers=pb.Integers(values=[1]))
            asked = pb.GetFeaturesRequest(features=["clicks"], keys={"user_id": column})
            reply = pb_grpc.FeaturesStub(channel).GetFeatures(asked, timeout=10)
            assert list(reply.columns[0].integers.values) == [1]


def https(port: int, context: ssl.SSLContext) -> int:
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
    try:
        connection.request("POST", "/v1/features", BODY, {"content-type": "application/json"})
        return connection.getresponse().status
    finally:
        connection.close()
