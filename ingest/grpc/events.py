"""Small batches of JSON records, landed at once; a batch sent again changes nothing."""

import hashlib
import time
from collections.abc import Sequence

from featurestore.definitions.project import Project
from featurestore.errors import TerminalError, TransientError
from featurestore.landing.batch import landed_schema
from featurestore.landing.dead_letters import DeadLetter
from featurestore.landing.zone import LandingZone, utc_now
from ingest.columns import clock_is_wrong
from ingest.grpc.uploads import Status, door_of, safe_id, status_of, taken
from ingest.metrics import IngestMetrics
from ingest.records import JsonDecoder

BATCH_RECORDS = 10_000


def land_events(
    source: str, batch_id: str, records: Sequence[bytes], *, project: Project, zone: LandingZone, metrics: IngestMetrics
) -> Status:
    """Land records as the upload `batch_id`; durable when it returns, with every rejected record named.

    Raises:
        RefusedError: other records were landed under that id.
        TransientError: the disk is full, or the clock is wrong.
    """
    began_s = time.monotonic()
    door = door_of(project, source)
    if not 1 <= len(records) <= BATCH_RECORDS:
        raise TerminalError(f"a batch has 1 to {BATCH_RECORDS} records, not {len(records)}")
    sha256 = _content(records)
    landing = zone.open_upload(source, safe_id(batch_id))
    manifest = landing.manifest()
    if manifest is not None and manifest.sha256 != sha256:
        raise taken(batch_id, manifest.state)
    if manifest is None:
        decoded = JsonDecoder(door).decode(records, range(len(records)), utc_now())
        if clock_is_wrong(decoded.future, len(records)):
            raise TransientError("most records are more than 5 min in the future; is the ingest service's clock right?")
        if decoded.rows.num_rows:
            landing.write_part(decoded.rows, first_row=0, end_row=len(records))
        manifest = landing.publish(
            sha256=sha256,
            size_bytes=sum(map(len, records)),
            schema=landed_schema(door.source),
            schema_version=door.source.schema_version,
            dead=[DeadLetter(one.row, one.reason, records[one.row]) for one in decoded.rejections],
            now=utc_now,
        )
        if manifest.sha256 != sha256:
            raise taken(batch_id, manifest.state)
        metrics.unknown_members(source, decoded.unknown_members)
        metrics.landed(manifest.batches(landing.chain), took_s=time.monotonic() - began_s)
    return status_of(zone, manifest, rejected_rows=BATCH_RECORDS)


def _content(records: Sequence[bytes]) -> str:
    """A digest of the records and of where each one ends."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(len(record).to_bytes(8, "big"))
        digest.update(record)
    return digest.hexdigest()
