"""Small batches of JSON records, landed at once; a batch sent again changes nothing."""

import hashlib
from collections.abc import Iterator, Sequence

from featurestore.definitions.project import Project
from featurestore.landing.zone import LandingZone, utc_now
from featurestore.settings import Settings
from ingest.columns import Door
from ingest.grpc.pieces import Piece, pieces_of_lines, pieces_of_records
from ingest.grpc.refusals import InvalidFieldError
from ingest.grpc.split import land
from ingest.grpc.uploads import Status, check_disk, door_of, safe_id, status_of, taken
from ingest.long_form import are_lines, parse_line
from ingest.metrics import IngestMetrics

BATCH_RECORDS = 10_000


def land_events(
    source: str,
    batch_id: str,
    records: Sequence[bytes],
    *,
    project: Project,
    zone: LandingZone,
    metrics: IngestMetrics,
    settings: Settings,
) -> Status:
    """Land records (rows, or lines of the long form) as the upload `batch_id`; durable when it returns.

    Raises:
        RefusedError: other records were landed under that id.
        TransientError: the disk is full, or the clock is wrong.
    """
    door = door_of(project, source)
    if not 1 <= len(records) <= BATCH_RECORDS:
        raise InvalidFieldError("records", f"a batch has 1 to {BATCH_RECORDS} records, not {len(records)}")
    sha256 = _content(records)
    landing = zone.open_upload(source, safe_id(batch_id))
    manifest = landing.manifest()
    if manifest is None:
        size_bytes = sum(map(len, records))
        check_disk(settings, size_bytes)
        manifest = land(
            _pieces(records, door), door, landing, settings.grpc, metrics, sha256=sha256, size_bytes=size_bytes
        )
    if manifest.sha256 != sha256:
        raise taken(batch_id, manifest.state)
    return status_of(zone, manifest, rejected_rows=BATCH_RECORDS)


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
