"""An Azurite of the platform's own (the Azure blob store of a development machine), and what can be asked of any."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from azure.core.exceptions import AzureError, ResourceExistsError
from azure.storage.blob import BlobServiceClient

from featurestore_cli.stack import downloads
from featurestore_cli.stack.runtimes import find_node
from featurestore_cli.stack.service import Program, Say, listens

DEFAULT_PORT = 10000
ACCOUNT = "devstoreaccount1"
MARKER = "featurestore-platform-"  # a container of this name and the id of the data directory marks our own


@dataclass(frozen=True, slots=True, kw_only=True)
class AzuriteServer:
    """Blobs only, on loopback, with a key of its own; its data in `home`."""

    home: Path
    port: int
    key: str = field(repr=False)  # base64

    @property
    def connection_string(self) -> str:
        endpoint = f"http://127.0.0.1:{self.port}/{ACCOUNT}"
        return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={self.key};BlobEndpoint={endpoint};"

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
        )


def marked(connection_string: str, platform_id: str) -> bool:
    """Whether the blob store there belongs to this platform; nothing is written."""
    with _client(connection_string) as client:
        try:
            return bool(client.get_container_client(f"{MARKER}{platform_id}").exists())
        except AzureError:
            return False


def mark(connection_string: str, platform_id: str) -> None:
    """Say that this blob store belongs to this platform."""
    with _client(connection_string) as client:
        try:
            client.create_container(f"{MARKER}{platform_id}")
        except ResourceExistsError:
            pass


def _client(connection_string: str) -> BlobServiceClient:
    return BlobServiceClient.from_connection_string(
        connection_string, retry_total=0, connection_timeout=1, read_timeout=2, logging_enable=False
    )
