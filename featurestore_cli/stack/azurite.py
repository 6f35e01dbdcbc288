"""An Azurite of the platform's own (the Azure blob store of a development machine), and what can be asked of any."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from azure.core.exceptions import AzureError, ResourceExistsError
from azure.storage.blob import BlobServiceClient

from featurestore_cli.stack import downloads
from featurestore_cli.stack.runtimes import find_node
from featurestore_cli.stack.service import Program, Say, join_address, listens

DEFAULT_PORT = 10000
ACCOUNT = "devstoreaccount1"
# Published by Microsoft, the same in every Azurite that is not told otherwise: no secret.
WELL_KNOWN_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
MARKER = "featurestore-platform-"  # a container of this name and the id of the data directory marks our own


@dataclass(frozen=True, slots=True, kw_only=True)
class AzuriteServer:
    """Blobs only, on loopback, with a key of its own; its data in `home`."""

    home: Path
    port: int
    key: str = field(repr=False)  # base64

    @property
    def connection_string(self) -> str:
        return _connection_string("127.0.0.1", self.port, self.key)

    def program(self, env: Mapping[str, str], logs: Path, say: Say) -> Program:
        """Fetch it if it is missing, and say how to start it.

        Raises:
            MissingProgramError, NotStartedError
        """
        node = find_node(env)
        main = downloads.azurite(downloads.cache_dir(env), node, logs, env, say)
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        where = ("--blobHost", "127.0.0.1", "--blobPort", str(self.port), "--location", str(self.home.absolute()))
        quiet = ("--silent", "--skipApiVersionCheck", "--disableTelemetry")
        return Program(
            name="azurite",
            command=(str(node.program), "--max-old-space-size=256", str(main), *where, *quiet),
            env={"AZURITE_ACCOUNTS": f"{ACCOUNT}:{self.key}"},
            answers=lambda: listens("127.0.0.1", self.port),
            address=f"127.0.0.1:{self.port}",
            ports=(self.port,),
        )


def well_known(host: str, port: int) -> str:
    """How one gets into an Azurite that was started without an account of its own."""
    return _connection_string(host, port, WELL_KNOWN_KEY)


def endpoint(connection_string: str) -> str:
    """The URL of its blobs; "" for no connection string."""
    values = _fields(connection_string)
    if values.get("UseDevelopmentStorage") == "true":
        return f"http://127.0.0.1:{DEFAULT_PORT}/{ACCOUNT}"
    plain = f"https://{values.get('AccountName')}.blob.{values.get('EndpointSuffix', 'core.windows.net')}"
    return values.get("BlobEndpoint") or (plain if "AccountName" in values else "")


def key(connection_string: str) -> str:
    return _fields(connection_string).get("AccountKey", "")


def marked(connection_string: str, platform_id: str) -> bool:
    """Whether the blob store there belongs to this platform; nothing is written."""
    with _client(connection_string) as client:
        try:
            return bool(client.get_container_client(f"{MARKER}{platform_id}").exists())
        except AzureError:
            return False


def mark(connection_string: str, platform_id: str) -> None:
    """Say that this blob store belongs to this platform."""
    with _client(connection_string) as client, suppress(ResourceExistsError):
        client.create_container(f"{MARKER}{platform_id}")


def _connection_string(host: str, port: int, key: str) -> str:
    at = f"http://{join_address(host, port)}/{ACCOUNT}"
    return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={at};"


def _fields(connection_string: str) -> dict[str, str]:
    pairs = (one.partition("=") for one in connection_string.split(";"))
    return {name: value for name, _, value in pairs if value}


def _client(connection_string: str) -> BlobServiceClient:
    return BlobServiceClient.from_connection_string(
        connection_string, retry_total=0, connection_timeout=1, read_timeout=2, logging_enable=False
    )
