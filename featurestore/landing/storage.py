"""Where landed files lie: on the local disk or in Azure Blob Storage, behind one small protocol."""

from contextlib import AbstractContextManager
from datetime import datetime
from typing import BinaryIO, Protocol

from featurestore.settings import Settings


class Storage(Protocol):
    """Files by their path below a root, `directory/name`. Thread-safe.

    A file that can be seen is whole and durable, and never changes until it is removed, unless an erasure replaces
    it. Every method raises a TransientError when the storage does not answer.
    """

    @property
    def address(self) -> str:
        """Where it is, for people."""
        ...

    def directories(self, directory: str = "") -> list[str]:
        """The names of the directories in a directory, sorted; empty where there is none."""
        ...

    def names(self, directory: str) -> list[str]:
        """The names of the files in a directory, in no order; empty where there is none."""
        ...

    def state(self, directory: str) -> object | None:
        """Something that differs whenever `names` does, or None where that cannot be told for less than a listing."""
        ...

    def settle(self, directory: str) -> None:
        """Make names that were seen in a directory durable: whoever believes a listing does this first."""
        ...

    def open(self, path: str) -> BinaryIO:
        """A file for reading, with `seek`.

        Raises:
            FileNotFoundError: there is none of that path.
        """
        ...

    def writing(self, path: str) -> AbstractContextManager[BinaryIO]:
        """An empty file to fill with what shall be `path`; gone at the end unless `create` has given it its name.

        Raises:
            NoSpaceError: the disk is full.
        """
        ...

    def create(self, file: BinaryIO, path: str) -> bool:
        """Give a file of `writing` its name, unless the name is taken; durable when it returns.

        Returns whether the name was free: of many who create one path, exactly one is told so.
        """
        ...

    def written_at(self, path: str) -> datetime | None:
        """When a file or directory was written, by the storage's clock; None where there is none."""
        ...

    def replace(self, file: BinaryIO, path: str) -> None:
        """Put a file of `writing` in the place of the one of that name, in one step; durable when it returns.

        Who reads the old one goes on reading it, or gets a TransientError.
        """
        ...

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        ...

    def remove_directory(self, directory: str) -> None:
        """Remove a directory, if it is there and empty; nobody is about to write to it."""
        ...


def open_storage(settings: Settings) -> Storage:
    """The storage that the settings name; nothing is asked before the first call."""
    if settings.azure.landing_container:
        from featurestore.landing.blob import BlobStorage  # here, because Azure's client takes long to import

        container = settings.name(settings.azure.landing_container, "-")
        return BlobStorage(settings.azure, container)
    from featurestore.landing.disk import DiskStorage

    return DiskStorage(settings.landing_dir)
