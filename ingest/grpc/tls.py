"""Where the service listens: with TLS if it has a certificate, and with client certificates if it is given their CA."""

from pathlib import Path

import grpc

from featurestore.errors import SettingsError, TerminalError
from featurestore.settings import GrpcSettings


def listen(server: grpc.Server, settings: GrpcSettings) -> int:
    """Open the port; returns its number.

    Raises:
        SettingsError: a file of certificates cannot be read, or one is missing.
        TerminalError: something else is at that address.
    """
    credentials = _credentials(settings)
    try:
        if credentials is None:
            return server.add_insecure_port(settings.address)
        return server.add_secure_port(settings.address, credentials)
    except RuntimeError as error:
        raise TerminalError(f"cannot listen at {settings.address}; is something else there?") from error


def _credentials(settings: GrpcSettings) -> grpc.ServerCredentials | None:
    paths = (settings.tls_key_path, settings.tls_certificate_path)
    if not any((*paths, settings.tls_client_ca_path)):
        return None
    if not all(paths):
        raise SettingsError("FEATURESTORE_GRPC_TLS_CERTIFICATE_PATH and …_TLS_KEY_PATH go together; one is missing")
    try:
        pair = Path(settings.tls_key_path).read_bytes(), Path(settings.tls_certificate_path).read_bytes()
        ca = Path(settings.tls_client_ca_path).read_bytes() if settings.tls_client_ca_path else None
    except OSError as error:
        raise SettingsError(f"FEATURESTORE_GRPC_TLS_…_PATH: {error}") from error
    return grpc.ssl_server_credentials([pair], root_certificates=ca, require_client_auth=ca is not None)
