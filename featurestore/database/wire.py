"""Write jobs as entries of the stream.

An entry has the fields `kind`, `header` (JSON), `reply` (the key that gets the reply) and, for an append, `rows` and
`quarantined` (Arrow IPC streams; instead of a large one `rows_file` or `quarantined_file`, see job_files). Values of
features have a form of their own, see feature_jobs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import pyarrow as pa
import pyarrow.ipc as ipc

from featurestore.database import feature_jobs
from featurestore.database.feature_jobs import JSON, FeatureJob
from featurestore.database.jobs import WITHOUT_ROWS, AppendJob, Job, LedgerLine
from featurestore.errors import JobRefusedError

KIND, HEADER, ROWS, QUARANTINED, REPLY = b"kind", b"header", b"rows", b"quarantined", b"reply"
IN_FILE = b"_file"  # ends the field that names the file of a table which does not stand in the job
LARGE_BYTES = 512 * 2**10  # of a table; below it, a file costs more than it saves

# Without threads: to wake some costs more than they would save with tables that stand in a job.
_WRITE = ipc.IpcWriteOptions(compression="lz4", use_threads=False)
_READ = ipc.IpcReadOptions(use_threads=False)

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class _AppendHeader:
    job_id: str
    target: str
    lines: tuple[LedgerLine, ...]


def encode(job: Job, to_file: Callable[[pa.Table], str] | None = None) -> dict[bytes, bytes]:
    """The fields of the stream entry, without `reply`; large tables go to files, where there is a way to write them."""
    kind = job.kind.encode()
    if not isinstance(job, AppendJob):
        return {KIND: kind, HEADER: msgspec.json.encode(job)}
    return {
        KIND: kind,
        HEADER: msgspec.json.encode(_AppendHeader(job.job_id, job.target, job.lines)),
        **_table_field(ROWS, job.rows, to_file),
        **_table_field(QUARANTINED, job.quarantined, to_file),
    }


def decode(fields: Mapping[bytes, bytes]) -> Job | FeatureJob:
    """Build the job of a stream entry.

    Raises:
        JobRefusedError: a field is missing or is not what it should be; the message names it.
    """
    if JSON in fields:
        return feature_jobs.from_json(fields[JSON])
    kind = fields.get(KIND, b"").decode(errors="replace")
    if kind in WITHOUT_ROWS:
        return _header(fields, WITHOUT_ROWS[kind])
    if kind == FeatureJob.kind:
        return feature_jobs.from_table(job_id_of(fields), _table(fields, ROWS))
    if kind != AppendJob.kind:
        raise JobRefusedError(f"kind {kind!r} is not one of append, features, {', '.join(WITHOUT_ROWS)}")
    header = _header(fields, _AppendHeader)
    return AppendJob(header.job_id, header.target, header.lines, _table(fields, ROWS), _table(fields, QUARANTINED))


def job_id_of(fields: Mapping[bytes, bytes]) -> str:
    """The job's own name as far as the header can be read; for replies to jobs that cannot be decoded."""
    if JSON in fields:
        return feature_jobs.routing(fields[JSON])[0]
    try:
        return str(msgspec.json.decode(fields.get(HEADER, b"{}"), type=dict[str, object]).get("job_id", ""))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


def reply_key_of(fields: Mapping[bytes, bytes]) -> bytes:
    """The key that the client named for the reply; whether it may be used is another matter."""
    return feature_jobs.routing(fields[JSON])[1].encode() if JSON in fields else fields.get(REPLY, b"")


def to_ipc(table: pa.Table) -> bytes:
    """An Arrow IPC stream; bodies compressed, because what is queued is written to Redis' append-only file too."""
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, table.schema, options=_WRITE) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def from_ipc(data: bytes) -> pa.Table:
    """Raises pa.ArrowInvalid or OSError when `data` is not a whole, valid Arrow IPC stream."""
    table = ipc.open_stream(data, options=_READ).read_all()
    table.validate(full=True)  # a flipped bit in an offset would otherwise crash the reader of the table
    return table


def _table_field(name: bytes, table: pa.Table, to_file: Callable[[pa.Table], str] | None) -> dict[bytes, bytes]:
    if to_file and table.nbytes > LARGE_BYTES:
        return {name + IN_FILE: to_file(table).encode()}
    return {name: to_ipc(table)}


def _header(fields: Mapping[bytes, bytes], cls: type[Value]) -> Value:
    try:
        return msgspec.json.decode(fields.get(HEADER, b""), type=cls)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JobRefusedError(f"header: {error}") from error


def _table(fields: Mapping[bytes, bytes], name: bytes) -> pa.Table:
    if name not in fields:
        raise JobRefusedError(f"the field {name.decode()!r} is missing")
    try:
        return from_ipc(fields[name])
    except (pa.ArrowException, OSError) as error:
        raise JobRefusedError(f"{name.decode()}: not an Arrow IPC stream ({error})") from error
