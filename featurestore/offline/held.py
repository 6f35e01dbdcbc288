"""Rows of the log as a reader collects them: of a log that is larger than memory only what can matter is kept.

What is still too much after that goes to a file without a name in the directory for temporary files (TMPDIR), cut into
parts of different entities, and comes back part by part.
"""

import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc

Thin = Callable[[pa.Table], pa.Table]  # of any of the rows, those that can matter, whatever the others are
PartOf = Callable[[pa.Table], "np.ndarray[tuple[int], np.dtype[np.int64]]"]  # the part of each row's entity

PARTS = 64  # that rows on disk are cut into

_THIN_BYTES = 512 * 2**20  # so much is added before all is thinned
_MEMORY_BYTES = 512 * 2**20  # so much is kept in memory after that, and read back at a time


@dataclass(frozen=True, slots=True)
class Part:
    """All rows of the entities in the parts `first` to `end` (exclusive)."""

    first: int
    end: int
    rows: pa.Table

    @property
    def is_whole(self) -> bool:
        return (self.first, self.end) == (0, PARTS)


class Held:
    """Rows of one view. Without `thin` and `part_of` all of them, in memory."""

    def __init__(self, thin: Thin | None = None, part_of: PartOf | None = None) -> None:
        self.rows_read = 0  # those that were thinned out are counted
        self._thin, self._part_of = thin, part_of
        self._tables: list[pa.Table] = []
        self._added_bytes = 0
        self._disk: _Disk | None = None

    @classmethod
    def of(cls, table: pa.Table) -> "Held":
        """What is in memory already."""
        held = cls()
        held.add([table])
        return held

    def add(self, tables: Iterable[pa.Table]) -> None:
        for table in tables:
            self.rows_read += table.num_rows
            self._tables.append(table)
            self._added_bytes += table.nbytes
            if self._added_bytes > _THIN_BYTES:
                self._make_room()

    def parts(self) -> Iterator[Part]:
        """All rows; more than one part only where they did not stay in memory."""
        if self._disk:
            self._make_room()
            yield from self._disk.read()
        else:
            yield Part(0, PARTS, self._in_memory())

    def table(self) -> pa.Table:
        """All rows, in memory."""
        return pa.concat_tables([part.rows for part in self.parts()])

    def _in_memory(self) -> pa.Table:
        return pa.concat_tables(self._tables)

    def _make_room(self) -> None:
        if not self._thin or not self._part_of:
            return
        rows = self._thin(self._in_memory())
        if self._disk or rows.nbytes > _MEMORY_BYTES:
            self._disk = self._disk or _Disk(rows.schema)
            self._disk.write(rows, self._part_of)
            rows = rows.schema.empty_table()
        self._tables, self._added_bytes = [rows], 0


class _Disk:
    """A file that is gone when nobody holds it any more."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by the next line
        weakref.finalize(self, self._file.close)
        self._pieces: list[list[_Piece]] = [[] for _ in range(PARTS)]

    def write(self, rows: pa.Table, part_of: PartOf) -> None:
        parts = part_of(rows)
        order = np.argsort(parts, kind="stable")
        firsts, ends = (np.searchsorted(parts[order], np.arange(PARTS), side=side) for side in ("left", "right"))
        for part in np.unique(parts):
            some = rows.take(pa.array(order[firsts[part] : ends[part]], pa.int64()))
            self._pieces[part].append(_Piece(self._file.tell(), some.nbytes))
            with ipc.new_stream(self._file, rows.schema, options=ipc.IpcWriteOptions(compression="lz4")) as stream:
                stream.write_table(some)

    def read(self) -> Iterator[Part]:
        """As many parts at a time as stay in memory."""
        first = 0
        while first < PARTS:
            end, size = first + 1, self._bytes(first)
            while end < PARTS and size + self._bytes(end) <= _MEMORY_BYTES:
                size += self._bytes(end)
                end += 1
            pieces = [piece for part in self._pieces[first:end] for piece in part]
            yield Part(first, end, pa.concat_tables([self._schema.empty_table(), *map(self._read, pieces)]))
            first = end

    def _bytes(self, part: int) -> int:
        return sum(piece.size for piece in self._pieces[part])

    def _read(self, piece: "_Piece") -> pa.Table:
        self._file.seek(piece.start)
        with ipc.open_stream(self._file) as stream:
            return stream.read_all()


@dataclass(frozen=True, slots=True)
class _Piece:
    start: int
    size: int  # of its rows in memory
