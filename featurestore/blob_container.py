"""A container of Azure Blob Storage, and what its errors mean for the caller."""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.storage.blob import BlobServiceClient, LinearRetry

from featurestore.errors import SettingsError, StoreUnavailableError, TerminalError, TransientError
from featurestore.settings import AzureSettings

CONNECT_S = 5.0

_NOWHERE = "there is no blob storage: neither FEATURESTORE_AZURE_CONNECTION_STRING nor …_ACCOUNT_URL is set"


class BlobMissingError(TerminalError):
    """There is no blob of that name."""


class BlobContainer:
    """The client of one container; nothing is asked before the first call. Thread-safe.

    Every call is tried as often, and waits as long each time, as the settings say.
    """

    def __init__(self, azure: AzureSettings, name: str) -> None:
        """Raises SettingsError when the settings name no account, or do not say how to sign in."""
        self.client = _service(azure).get_container_client(name)

    @property
    def address(self) -> str:
        """The container's URL, without credentials."""
        return self.client.url.split("?")[0]

    def close(self) -> None:
        self.client.close()

    def create(self) -> None:
        """Create the container, if it is not there."""
        # A SAS token of a container may not create one; it is there then, or the first upload says that it is not.
        with suppress(ResourceExistsError, SettingsError), self.explained("the container"):
            self.client.create_container()

    def create_blob(self, name: str, data: bytes | BinaryIO, metadata: dict[str, str] | None = None) -> bool:
        """Write a blob, whole, unless the name is taken; of many who write one name, exactly one is told True.

        Raises:
            BlobMissingError: there is no such container.
        """
        try:
            with self.explained(name):
                self.client.upload_blob(name, data, overwrite=False, metadata=metadata)
        except ResourceExistsError:
            return False
        return True

    @contextmanager
    def explained(self, what: str) -> Generator[None]:
        """Say what an error of Azure's means for the caller; that a name is taken is the caller's to judge.

        Raises: StoreUnavailableError (no answer), SettingsError (credentials), BlobMissingError, TransientError (it
        was changed meanwhile), TerminalError (refused).
        """
        try:
            yield
        except ResourceExistsError:
            raise
        except ResourceNotFoundError as error:
            raise BlobMissingError(f"{what} is not in {self.address}") from error
        except ResourceModifiedError as error:
            raise TransientError(f"{what} in {self.address} was changed while it was read") from error
        except HttpResponseError as error:
            code, status = getattr(error, "error_code", None) or error.reason, error.status_code or 0
            if isinstance(error, ClientAuthenticationError) or status in {401, 403}:
                said = code or "there are none; sign in (az login), or give a key or SAS token"
                raise SettingsError(
                    f"{self.address} refuses the credentials of FEATURESTORE_AZURE_…: {said}"
                ) from error
            if status in {408, 429} or status >= 500:
                raise StoreUnavailableError("Azure Blob Storage", self.address, str(code)) from error
            raise TerminalError(f"{self.address} refuses {what}: {code}") from error
        except AzureError as error:
            raise StoreUnavailableError("Azure Blob Storage", self.address, type(error).__name__) from error


def _service(azure: AzureSettings) -> BlobServiceClient:
    bounds: dict[str, Any] = {
        "retry_policy": LinearRetry(backoff=1, retry_total=max(azure.tries, 1) - 1, random_jitter_range=1),
        "connection_timeout": min(azure.timeout_s, CONNECT_S),
        "read_timeout": azure.timeout_s,
    }
    if not azure.connection_string:
        return BlobServiceClient(_checked_url(azure), _credential(azure), **bounds)
    try:
        return BlobServiceClient.from_connection_string(azure.connection_string, **bounds)
    except ValueError:  # its message may repeat a part of the string, which holds the key
        reason = "FEATURESTORE_AZURE_CONNECTION_STRING is not a connection string of Azure Storage"
        raise SettingsError(reason) from None


def _checked_url(azure: AzureSettings) -> str:
    if not azure.account_url:
        raise SettingsError(_NOWHERE)
    if azure.account_key and azure.sas_token:
        raise SettingsError("FEATURESTORE_AZURE_ACCOUNT_KEY and …_SAS_TOKEN are both set; give one of them")
    if not (azure.account_key or azure.sas_token) and not azure.account_url.startswith("https://"):
        raise SettingsError("FEATURESTORE_AZURE_ACCOUNT_URL: Azure's default credentials need an https:// address")
    return azure.account_url


def _credential(azure: AzureSettings) -> Any:
    if azure.account_key or azure.sas_token:
        return azure.account_key or azure.sas_token.removeprefix("?")
    try:
        from azure.identity import DefaultAzureCredential  # here, because it comes with an extra
    except ImportError as error:
        raise SettingsError(
            "FEATURESTORE_AZURE_ACCOUNT_URL without a key or SAS token means Azure's default credentials; "
            "install featurestore-dagster[azure], or set FEATURESTORE_AZURE_ACCOUNT_KEY or …_SAS_TOKEN"
        ) from error
    return DefaultAzureCredential()
