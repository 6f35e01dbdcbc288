"""Feature values that other services send through the database's write stream: landed like everything else.

The values of a job become rows of the sources that they belong to, landed under the job's own name. That name is taken
once, so a job that is sent again changes nothing; from there they go the way of all rows, through sensor and log.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import isfinite

import msgspec
import pyarrow as pa

from featurestore.database.feature_jobs import FeatureJob, Value
from featurestore.definitions.long_form import Cell, key_of
from featurestore.definitions.project import Project
from featurestore.errors import JobRefusedError, TerminalError, UnknownFeatureError
from featurestore.landing.columns import Door
from featurestore.landing.publish import Published
from featurestore.landing.zone import LandingZone, job_chain
from ingest.records import JsonDecoder

_JOB_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")

Record = dict[str, str | int | float | bool | datetime | None]


@dataclass(slots=True)
class _Row:
    """A row of a source; `first` is the place of its first value in the job."""

    first: int
    record: Record


def _utc_now() -> datetime:
    return datetime.now(UTC)


class FeatureWrites:
    """Lands feature jobs. Thread-safe; jobs of one id race safely."""

    def __init__(self, project: Project, zone: LandingZone, *, now: Callable[[], datetime] = _utc_now) -> None:
        self._project, self._zone, self._now = project, zone, now
        self._doors = {source.name: Door.of(source, project) for source in project.sources}
        self._source_of = {
            feature.name: view.source.name
            for view in sorted(project.feature_views, key=lambda view: view.version)
            for feature in view.row_features
        }
        # Times of the long form are RFC 3339, whatever the source's own records have.
        self._decoders = {
            name: JsonDecoder(replace(door, source=replace(door.source, timestamp_format="rfc3339")))
            for name, door in self._doors.items()
        }

    def land(self, job: FeatureJob) -> list[str]:
        """Land all of the job, or nothing; return its batches, which are durable then.

        Raises:
            JobRefusedError: a value cannot be landed, or the id was used for other values; the message says which.
            TransientError: the disk is full; the same job may be sent again.
        """
        if not _JOB_ID.fullmatch(job.job_id):
            raise JobRefusedError(f"job_id {job.job_id!r} is not a name of up to 128 letters, digits, '.', '-' and '_'")
        tables = {source: self._decoded(source, rows) for source, rows in self._rows(job.values).items()}
        return [self._publish(job.job_id, source, table) for source, table in tables.items()]

    def _rows(self, values: Iterable[Value]) -> dict[str, list[_Row]]:
        """The rows of each source: values of one entity and time are one row."""
        found: dict[str, dict[tuple[str, str, datetime], _Row]] = {}
        for place, one in enumerate(values):
            try:
                door, cell = self._cell(one.feature_name)
                key = key_of(cell, one.entity_id)
                rows = found.setdefault(door.source.name, {})
                row = rows.setdefault((str([*key]), one.entity_id, one.event_timestamp), _Row(place, {}))
                row.record |= {door.source.timestamp: one.event_timestamp, **key}
                _put(row.record, cell.column, one.value)
            except TerminalError as error:
                raise JobRefusedError(f"value {place}: {error}") from error
        return {source: list(rows.values()) for source, rows in found.items()}

    def _cell(self, feature_name: str) -> tuple[Door, Cell]:
        if feature_name not in self._source_of:
            try:
                self._project.find(feature_name)
            except UnknownFeatureError as error:
                raise TerminalError(str(error)) from error
            raise TerminalError(f"{feature_name!r} is computed from rows, it cannot be written")
        door = self._doors[self._source_of[feature_name]]
        return door, door.long_form.cell(feature_name)

    def _decoded(self, source: str, rows: list[_Row]) -> pa.Table:
        records = [msgspec.json.encode(row.record) for row in rows]
        decoded = self._decoders[source].decode(records, range(len(records)), self._now())
        for one in decoded.rejections:
            raise JobRefusedError(f"value {rows[one.row].first}: not a row of source {source!r}: {one.reason}")
        return decoded.rows

    def _publish(self, job_id: str, source: str, table: pa.Table) -> str:
        landed = self._zone.publish(
            job_chain(source, job_id),
            table,
            source=source,
            start=0,
            end=table.num_rows,
            schema_version=self._doors[source].source.schema_version,
            previous=None,
            now=self._now,
        )
        if isinstance(landed, Published):
            return landed.batch.batch_id
        if not self._zone.read(landed.winner).equals(table):
            raise JobRefusedError(f"job_id {job_id!r} was used for other values; give each job an id of its own")
        return landed.winner.batch_id


def _put(record: Record, column: str, value: str | int | float | bool | None) -> None:
    if isinstance(value, float) and not isfinite(value):
        raise TerminalError(f"{column!r} is no finite number")
    if record.setdefault(column, value) != value:
        raise TerminalError(f"{column!r} stands there twice, with different values")
