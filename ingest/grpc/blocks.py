"""Files of lines, read in blocks of whole lines: line by line, or what is left of a block at once."""

from collections.abc import Iterator
from typing import BinaryIO

from ingest.grpc.pieces import FileRefusedError
from ingest.records import RECORD_BYTES

_BLOCK_BYTES = 256 * 1024
_LINE_BYTES = 4 * RECORD_BYTES  # a longer one is no line of rows
_BOM = b"\xef\xbb\xbf"


class Blocks:
    """The lines of a file, with their ends; memory holds one block."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._block = b""
        self._place = 0
        self._load()
        self._block = self._block.removeprefix(_BOM)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self.in_block():
            self._load()
        if not self._block:
            raise StopIteration
        start, end = self._place, self._block.find(b"\n", self._place) + 1
        self._place = end or len(self._block)
        return self._block[start : self._place]

    def in_block(self) -> bool:
        """Whether the block at hand has more lines."""
        return self._place < len(self._block)

    def rest(self) -> bytes:
        """What is left of the block at hand, or the next one; empty at the end of the file."""
        if not self.in_block():
            self._load()
        return self._block[self._place :] if self._place else self._block

    def skip(self) -> None:
        """Go on after the block at hand."""
        self._place = len(self._block)

    def _load(self) -> None:
        self._block, self._place = self._file.read(_BLOCK_BYTES), 0
        if self._block and not self._block.endswith(b"\n"):
            self._block += self._file.readline(_LINE_BYTES)
            if len(self._block) - self._block.rfind(b"\n", 0, -1) - 1 > _LINE_BYTES:
                raise FileRefusedError(f"a line is longer than {_LINE_BYTES} bytes")
