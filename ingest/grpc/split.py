"""Pieces of a file → parts: the batches of an upload, and the units of parallel work."""

import time
from collections.abc import Iterable

import pyarrow as pa

from featurestore.errors import TransientError
from featurestore.landing.batch import landed_schema
from featurestore.landing.dead_letters import DeadLetter
from featurestore.landing.uploads import Manifest, UploadLanding
from featurestore.landing.zone import utc_now
from featurestore.settings import GrpcSettings
from ingest.columns import Door, clock_is_wrong
from ingest.grpc.pieces import FileRefusedError, Piece
from ingest.metrics import IngestMetrics

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
    """Land all pieces or nothing; at most one part is held in memory. Returns the manifest that won.

    Raises:
        FileRefusedError: the file does not fit its source.
        TransientError: the disk is full, or the clock is wrong.
    """
    began_s = time.monotonic()
    parts = _Parts(landing, settings)
    dead: list[DeadLetter] = []
    dead_bytes = future = rows = 0
    for piece in pieces:
        parts.add(piece)
        metrics.unknown_members(door.source.name, piece.unknown_members)
        rows += piece.rows.num_rows + len(piece.dead)
        dead += piece.dead
        dead_bytes += sum(len(one.raw) for one in piece.dead)
        future += piece.future
        if len(dead) > _DEAD_ROWS or dead_bytes > _DEAD_BYTES:
            first = dead[0]
            raise FileRefusedError(f"too many bad rows; the first is row {first.sequence}: {first.reason}")
    parts.flush()
    if clock_is_wrong(future, rows):
        raise TransientError("most rows are more than 5 min in the future; is the clock of the ingest service right?")
    manifest = landing.publish(
        sha256=sha256,
        size_bytes=size_bytes,
        schema=landed_schema(door.source),
        schema_version=door.source.schema_version,
        dead=dead,
        now=utc_now,
    )
    if manifest.sha256 == sha256:
        metrics.landed(manifest.batches(landing.chain), took_s=time.monotonic() - began_s)
    return manifest


class _Parts:
    """Writes a part whenever enough rows have come."""

    def __init__(self, landing: UploadLanding, settings: GrpcSettings) -> None:
        self._landing, self._settings = landing, settings
        self._tables: list[pa.Table] = []
        self._rows = self._bytes = self._first_row = 0
        self.end_row = 0

    def add(self, piece: Piece) -> None:
        self.end_row = max(self.end_row, piece.end_row)
        self._tables.append(piece.rows)
        self._rows += piece.rows.num_rows
        self._bytes += piece.rows.nbytes
        if self._rows >= self._settings.part_rows or self._bytes >= self._settings.part_bytes:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            table = pa.concat_tables(self._tables)
            self._landing.write_part(table, first_row=self._first_row, end_row=self.end_row)
            self._first_row = self.end_row
        self._tables, self._rows, self._bytes = [], 0, 0
