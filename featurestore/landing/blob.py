"""Azure Blob Storage as storage of the landing zone: a blob is created whole, once (`If-None-Match: *`)."""

import errno
import io
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, BinaryIO, cast

from azure.core import MatchConditions
from azure.storage.blob import BlobClient, BlobPrefix

from featurestore.blob_container import BlobContainer, BlobMissingError
from featurestore.errors import NoSpaceError
from featurestore.settings import AzureSettings


class BlobStorage:
    """Blobs of one container, made with the first file; see featurestore.landing.storage.Storage."""

    def __init__(self, azure: AzureSettings, container: str) -> None:
        self._container = BlobContainer(azure, container)

    @property
    def address(self) -> str:
        return self._container.address

    def directories(self, directory: str = "") -> list[str]:
        found = [blob.name for blob in self._list(directory) if isinstance(blob, BlobPrefix)]
        return sorted(name.rstrip("/").rpartition("/")[2] for name in found)

    def names(self, directory: str) -> list[str]:
        return [b.name.rpartition("/")[2] for b in self._list(directory) if not isinstance(b, BlobPrefix)]

    def state(self, directory: str) -> None:  # a directory is but a part of names
        return None

    def settle(self, directory: str) -> None:
        """A blob that is listed is durable."""

    def open(self, path: str) -> BinaryIO:
        try:
            return cast(BinaryIO, _BlobFile(self._container, self._container.client.get_blob_client(path)))
        except BlobMissingError as error:
            raise FileNotFoundError(errno.ENOENT, "there is no such blob", path) from error

    @contextmanager
    def writing(self, path: str) -> Generator[BinaryIO]:
        try:
            with tempfile.TemporaryFile() as file:
                yield cast(BinaryIO, file)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise NoSpaceError(f"no space left in {tempfile.gettempdir()} to prepare {path}") from error
            raise

    def create(self, file: BinaryIO, path: str) -> bool:
        file.seek(0)
        try:
            return self._container.create_blob(path, file)
        except BlobMissingError:
            self._container.create()
            file.seek(0)
            return self._container.create_blob(path, file)

    def written_at(self, path: str) -> datetime | None:
        try:
            with self._container.explained(path):
                return self._container.client.get_blob_client(path).get_blob_properties().last_modified
        except BlobMissingError:
            return None

    def replace(self, file: BinaryIO, path: str) -> None:
        file.seek(0)
        with self._container.explained(path):
            self._container.client.upload_blob(path, file, overwrite=True)

    def remove(self, path: str) -> None:
        try:
            with self._container.explained(path):
                self._container.client.delete_blob(path)
        except BlobMissingError:
            pass

    def remove_directory(self, directory: str) -> None:
        """Nothing is to be done: a directory is there as long as it has files."""

    def _list(self, directory: str) -> list[Any]:
        try:
            with self._container.explained("the container"):
                return list(self._container.client.walk_blobs(f"{directory}/" if directory else None))
        except BlobMissingError:  # a container that is not there yet is empty
            return []


class _BlobFile(io.RawIOBase):
    """A blob that is downloaded in the ranges that are read; a TransientError once it was replaced."""

    def __init__(self, container: BlobContainer, blob: BlobClient) -> None:
        self._container, self._blob, self._place = container, blob, 0
        with container.explained(blob.blob_name):
            found = blob.get_blob_properties()
            self._size, self._etag = found.size, found.etag

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        data = self._download(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._download(self._size)

    def _download(self, length: int) -> bytes:
        length = min(length, self._size - self._place)
        if length <= 0:
            return b""
        with self._container.explained(self._blob.blob_name):
            data = self._blob.download_blob(
                offset=self._place, length=length, etag=self._etag, match_condition=MatchConditions.IfNotModified
            ).readall()
        self._place += len(data)
        return data
