"""Small batches of JSON records, landed at once; a batch sent again changes nothing."""

import hashlib
from collections.abc import Iterator, Sequence

from featurestore.definitions.project import Project
from featurestore.landing.batch import utc_now
from featurestore.landing.columns import Door
from featurestore.landing.uploads import Manifest
from featurestore.landing.zone import LandingZone
from featurestore.settings import Settings
from ingest.grpc.pieces import Piece, pieces_of_lines, pieces_of_records
from ingest.grpc.refusals import InvalidFieldError
from ingest.grpc.split import land
from ingest.grpc.spool import safe_id
from ingest.grpc.uploads import Status, Uploads, check_disk, door_of, status_of, taken
from ingest.long_form import are_lines, parse_line
from ingest.metrics import IngestMetrics

BATCH_RECORDS = 10_000


class Events:
    """Lands batches of records. Thread-safe; a batch is an upload, held against others of its id while it lands."""

    def __init__(
        self, settings: Settings, project: Project, zone: LandingZone, metrics: IngestMetrics, uploads: Uploads
    ) -> None:
        self._settings, self._project, self._zone, self._metrics = settings, project, zone, metrics
        self._uploads = uploads

    def land(self, source: str, batch_id: str, records: Sequence[bytes]) -> Status:
        """Land records (rows, or lines of the long form) as the upload `batch_id`; durable when it returns.

        Raises:
            RefusedError: other records were landed under that id, or are about to be.
            TransientError: the disk is full, or the clock is wrong.
        """
        door = door_of(self._project, source)
        if not 1 <= len(records) <= BATCH_RECORDS:
            raise InvalidFieldError("records", f"a batch has 1 to {BATCH_RECORDS} records, not {len(records)}")
        sha256 = _content(records)
        with self._uploads.held(source, batch_id):
            manifest = self._landed(door, batch_id, records, sha256)
        if manifest.sha256 != sha256:
            raise taken(batch_id, manifest.state)
        return status_of(self._zone, manifest, rejected_rows=BATCH_RECORDS)

    def _landed(self, door: Door, batch_id: str, records: Sequence[bytes], sha256: str) -> Manifest:
        landing = self._zone.open_upload(door.source.name, safe_id(batch_id))
        if manifest := landing.manifest():
            landing.sweep(manifest, alone=True)  # of what a kill right after the landing left
            return manifest
        size_bytes = sum(map(len, records))
        check_disk(self._settings, size_bytes)
        pieces = _pieces(records, door)
        return land(pieces, door, landing, self._settings.grpc, self._metrics, sha256=sha256, size_bytes=size_bytes)


def _pieces(records: Sequence[bytes], door: Door) -> Iterator[Piece]:
    if are_lines(records):
        return pieces_of_lines(((record, parse_line(record)) for record in records), door, utc_now)
    return pieces_of_records(records, door, utc_now)


def _content(records: Sequence[bytes]) -> str:
    """A digest of the records and of where each one ends."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(len(record).to_bytes(8, "big"))
        digest.update(record)
    return digest.hexdigest()
