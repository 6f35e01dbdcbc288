"""Pieces of a file → parts: the batches of an upload, and the units of parallel work."""

import time
from collections.abc import Iterable, Iterator

import pyarrow as pa

from featurestore.errors import TransientError
from featurestore.landing.batch import utc_now
from featurestore.landing.columns import Door, clock_is_wrong
from featurestore.landing.dead_letters import DeadLetter
from featurestore.landing.schema import landed_schema
from featurestore.landing.uploads import Manifest, UploadLanding
from featurestore.settings import GrpcSettings
from ingest.grpc.pieces import FileRefusedError, Piece
from ingest.metrics import IngestMetrics

_GROUP_BYTES = 8 << 20  # of a row group in memory
_DEAD_ROWS, _DEAD_BYTES = 100_000, 64 << 20  # with more of them it is the wrong file


def land(
    pieces: Iterable[Piece],
    door: Door,
    landing: UploadLanding,
    settings: GrpcSettings,
    metrics: IngestMetrics,
    *,
    sha256: str,
    size_bytes: int,
) -> Manifest:
    """Land all pieces or nothing; at most one row group is held in memory. Returns the manifest that won.

    Nobody else in this process is landing the same upload meanwhile.

    Raises:
        FileRefusedError: the file does not fit its source.
        TransientError: the disk is full, or the clock is wrong.
    """
    began_s, schema = time.monotonic(), landed_schema(door.source)
    read = _Read()
    try:
        _write_parts(_groups(read.counting(pieces), settings.part_rows), landing, schema, settings)
        read.check_clock()
    except BaseException:
        landing.discard()
        raise
    manifest = landing.publish(  # from here on the parts are not ours to remove: it may have been seen
        sha256=sha256,
        size_bytes=size_bytes,
        schema=schema,
        schema_version=door.source.schema_version,
        dead=read.dead,
        now=utc_now,
    )
    landing.sweep(manifest, alone=True)
    if manifest.sha256 == sha256:
        metrics.unknown_members(door.source.name, read.unknown_members)
        metrics.landed(manifest.batches(landing.chain), took_s=time.monotonic() - began_s)
    return manifest


class _Read:
    """What has been read of a file."""

    def __init__(self) -> None:
        self.rows = self.future = self.unknown_members = self._dead_bytes = 0
        self.dead: list[DeadLetter] = []

    def counting(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        for piece in pieces:
            self.rows += piece.rows.num_rows + len(piece.dead)
            self.future += piece.future
            self.unknown_members += piece.unknown_members
            self.dead += piece.dead
            self._dead_bytes += sum(len(one.raw) for one in piece.dead)
            if len(self.dead) > _DEAD_ROWS or self._dead_bytes > _DEAD_BYTES:
                first = self.dead[0]
                raise FileRefusedError(f"too many bad rows; the first is row {first.sequence}: {first.reason}")
            yield piece

    def check_clock(self) -> None:
        if clock_is_wrong(self.future, self.rows):
            raise TransientError("most rows are more than 5 min in the future; is the ingest service's clock right?")


def _groups(pieces: Iterable[Piece], most_rows: int) -> Iterator[tuple[pa.Table, int]]:
    """Row groups of some size, each with the row where it ends."""
    tables: list[pa.Table] = []
    rows = size_bytes = end_row = 0
    for piece in pieces:
        if rows and (size_bytes >= _GROUP_BYTES or rows + piece.rows.num_rows > most_rows):
            yield pa.concat_tables(tables), end_row
            tables, rows, size_bytes = [], 0, 0
        tables.append(piece.rows)
        rows += piece.rows.num_rows
        size_bytes += piece.rows.nbytes
        end_row = max(end_row, piece.end_row)
    if rows:
        yield pa.concat_tables(tables), end_row


def _write_parts(
    groups: Iterator[tuple[pa.Table, int]], landing: UploadLanding, schema: pa.Schema, settings: GrpcSettings
) -> None:
    """Fill parts, each up to its limits of rows and bytes."""
    first_row, following = 0, next(groups, None)
    while following is not None:
        with landing.part(schema, first_row=first_row) as part:
            rows = size_bytes = 0
            while following is not None:
                table, end_row = following
                rows, size_bytes = rows + table.num_rows, size_bytes + table.nbytes
                if rows > table.num_rows and (rows > settings.part_rows or size_bytes > settings.part_bytes):
                    break
                part.add(table, end_row=end_row)
                first_row, following = end_row, next(groups, None)
