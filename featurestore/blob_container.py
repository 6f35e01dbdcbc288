"""A container of Azure Blob Storage, and what its errors mean for the caller."""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.storage.blob import BlobServiceClient, LinearRetry

from featurestore.errors import SettingsError, StoreUnavailableError, TerminalError, TransientError


class BlobMissingError(TerminalError):
    """There is no blob of that name."""


class BlobContainer:
    """The client of one container; nothing is asked before the first call. Thread-safe.

    Every call is tried three times, within `timeout_s` each.
    """

    def __init__(self, connection_string: str, name: str, *, timeout_s: float = 30.0) -> None:
        try:
            service = BlobServiceClient.from_connection_string(
                connection_string,
                retry_policy=LinearRetry(backoff=1, retry_total=2, random_jitter_range=1),
                connection_timeout=min(timeout_s, 5.0),
                read_timeout=timeout_s,
            )
        except ValueError:  # its message may repeat a part of the string, which holds the key
            reason = "FEATURESTORE_AZURE_CONNECTION_STRING is not a connection string of Azure Storage"
            raise SettingsError(reason) from None
        self.client = service.get_container_client(name)

    @property
    def address(self) -> str:
        """The container's URL, without credentials."""
        return self.client.url.split("?")[0]

    def close(self) -> None:
        self.client.close()

    def create(self) -> None:
        """Create the container, if it is not there."""
        with suppress(ResourceExistsError), self.explained("the container"):
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
            if status in {401, 403}:
                raise SettingsError(
                    f"{self.address} refuses the credentials of FEATURESTORE_AZURE_CONNECTION_STRING: {code}"
                ) from error
            if status in {408, 429} or status >= 500:
                raise StoreUnavailableError("Azure Blob Storage", self.address, str(code)) from error
            raise TerminalError(f"{self.address} refuses {what}: {code}") from error
        except AzureError as error:
            raise StoreUnavailableError("Azure Blob Storage", self.address, type(error).__name__) from error
