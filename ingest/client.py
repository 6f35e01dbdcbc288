"""Sending files and small batches to the ingest service, from Python."""

import hashlib
import random
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
import msgspec
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status

from featurestore.errors import StoreUnavailableError, TerminalError, TransientError
from featurestore.settings import GrpcSettings
from ingest.pb import ingest_pb2 as pb
from ingest.pb import ingest_pb2_grpc as pb_grpc

CHUNK_BYTES = 512 * 1024

_ATTEMPTS = 8  # in a row without progress
_LONGEST_PAUSE_S = 10.0
_CALL_S = 30.0
_SLOWEST_BYTES_S = 1 << 20  # a stream's deadline allows for this speed, landing included
_FORMATS = {
    ".parquet": pb.FILE_FORMAT_PARQUET,
    ".csv": pb.FILE_FORMAT_CSV,
    ".ndjson": pb.FILE_FORMAT_NDJSON,
    ".jsonl": pb.FILE_FORMAT_NDJSON,
}
_AGAIN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.FAILED_PRECONDITION,  # the service has less, or more, than we thought: ask it
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
}
_NEVER = float("inf")  # what the service has no room for, and will not have
_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.max_send_message_length", -1))

Record = Mapping[str, Any] | bytes
Progress = Callable[[int, int], None]  # bytes that are there, bytes of the file


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """PEM files: who signed the service's certificate, and, where it asks for one, the sender's own certificate."""

    ca_path: Path | str
    certificate_path: Path | str = ""
    key_path: Path | str = ""

    @classmethod
    def of(cls, settings: GrpcSettings) -> "Tls | None":
        """What the settings name, if they do."""
        own = {"certificate_path": settings.client_certificate_path, "key_path": settings.client_key_path}
        return cls(ca_path=settings.ca_path, **own) if settings.ca_path else None

    def credentials(self) -> grpc.ChannelCredentials:
        try:
            own = [Path(one).read_bytes() if one else None for one in (self.key_path, self.certificate_path)]
            return grpc.ssl_channel_credentials(Path(self.ca_path).read_bytes(), *own)
        except OSError as error:
            raise TerminalError(f"cannot read a certificate: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadReport:
    """What became of a file or batch: rows + dead_rows is what was sent."""

    upload_id: str
    rows: int
    dead_rows: int
    parts: int
    rejected: tuple[tuple[int, str], ...]  # the first dead rows and their reasons; rows count from 0
    created_at: datetime


def upload(
    path: Path | str,
    source: str,
    *,
    address: str,
    token: str = "",
    tls: Tls | None = None,
    upload_id: str | None = None,
    progress: Progress | None = None,
    giving_up: threading.Event | None = None,
) -> UploadReport:
    """Send a Parquet, CSV or NDJSON file; when it returns, the file is landed.

    An upload that is cut goes on where it was, also when this function is called again. Without an `upload_id` the
    content is the id: a file that has landed once is not landed again. `progress` is called from another thread. When
    `giving_up` is set, there are no further attempts.

    Raises:
        TerminalError: the service refuses the file; the message says why.
        StoreUnavailableError, TransientError: it does not answer, or has no room; call again later.
    """
    path = Path(path)
    sender = _Sender(path, source, upload_id, progress or (lambda done, total: None))
    with _connected(address, token, tls) as stub:
        return _report(sender.upload_id, sender.send(stub, _Attempts(address, giving_up)))


def send_events(
    records: Iterable[Record],
    source: str,
    *,
    address: str,
    token: str = "",
    tls: Tls | None = None,
    batch_id: str | None = None,
) -> UploadReport:
    """Land up to 10,000 records (mappings, or JSON as bytes) at once; those that are rejected are in the report.

    Sent again under the same `batch_id` (by default the content's digest) they change nothing. Raises like `upload`.
    """
    encoded = [record if isinstance(record, bytes) else msgspec.json.encode(record) for record in records]
    batch_id = batch_id or hashlib.sha256(b"\n".join(encoded)).hexdigest()[:32]
    request = pb.BatchEventsRequest(batch_id=batch_id, source=source, records=encoded)
    attempts = _Attempts(address)
    with _connected(address, token, tls) as stub:
        while True:
            try:
                return _report(batch_id, stub.BatchEvents(request, timeout=_CALL_S).receipt)
            except grpc.RpcError as error:
                attempts.failed(error)


class _Sender:
    """One file on its way."""

    def __init__(self, path: Path, source: str, upload_id: str | None, progress: Progress) -> None:
        if path.suffix.lower() not in _FORMATS:
            raise TerminalError(f"{path.name}: the format is not known by its name; it ends in {', '.join(_FORMATS)}")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
            self._size_bytes = file.tell()
        self._path, self._progress = path, progress
        self.upload_id = upload_id or digest.hexdigest()[:32]
        self._reference = pb.UploadReference(source=source, upload_id=self.upload_id)
        self._request = pb.StartUploadRequest(
            upload=self._reference,
            format=_FORMATS[path.suffix.lower()],
            size_bytes=self._size_bytes,
            sha256=digest.digest(),
        )

    def send(self, stub: pb_grpc.IngestStub, attempts: "_Attempts") -> pb.Receipt:
        """Send what is missing until it has landed."""
        while True:
            try:
                status = stub.StartUpload(self._request, timeout=_CALL_S)
                attempts.reached(status.committed_bytes)
                if status.state == pb.UPLOAD_STATE_OPEN:
                    missing_bytes = self._size_bytes - status.committed_bytes
                    deadline_s = _CALL_S + self._size_bytes / _SLOWEST_BYTES_S + missing_bytes / _SLOWEST_BYTES_S
                    status = stub.UploadFile(self._messages(status.committed_bytes), timeout=deadline_s)
            except grpc.RpcError as error:
                attempts.failed(error)
                continue
            if status.state == pb.UPLOAD_STATE_LANDED:
                self._progress(self._size_bytes, self._size_bytes)
                return status.receipt

    def _messages(self, offset: int) -> Iterator[pb.UploadFileRequest]:
        yield pb.UploadFileRequest(upload=self._reference)
        with self._path.open("rb") as file:
            file.seek(offset)
            while data := file.read(CHUNK_BYTES):
                chunk = pb.Chunk(offset=offset, data=data, crc32c=google_crc32c.value(data))
                yield pb.UploadFileRequest(chunk=chunk)
                offset += len(data)
                self._progress(offset, self._size_bytes)


class _Attempts:
    """Decides what follows a failed call: another attempt after a pause, or an error."""

    def __init__(self, address: str, giving_up: threading.Event | None = None) -> None:
        self._address, self._giving_up = address, giving_up or threading.Event()
        self._failed = 0
        self._reached_bytes = -1

    def reached(self, committed_bytes: int) -> None:
        """More of the file is there than ever: the failures before do not count any more."""
        if committed_bytes > self._reached_bytes:
            self._reached_bytes, self._failed = committed_bytes, 0

    def failed(self, error: grpc.RpcError) -> None:
        """Wait for the next attempt, or raise what the caller should know."""
        code, details, retry_s = _status(error)
        if (code not in _AGAIN and retry_s is None) or retry_s == _NEVER:
            raise TerminalError(details or code.name) from error
        self._failed += 1
        if self._failed >= _ATTEMPTS:
            if code == grpc.StatusCode.UNAVAILABLE:
                raise StoreUnavailableError("the ingest service", self._address, details) from error
            raise TransientError(f"the ingest service at {self._address}: {details or code.name}") from error
        pause_s = max(retry_s or 0.0, min(_LONGEST_PAUSE_S, 0.2 * 2**self._failed) * random.uniform(0.5, 1.0))
        if self._giving_up.wait(pause_s):
            raise TransientError(f"given up: {details}") from error


def _status(error: grpc.RpcError) -> tuple[grpc.StatusCode, str, float | None]:
    """Its code and text, and the seconds after which the service wants to be asked again, if it says so."""
    if not isinstance(error, grpc.Call):
        return grpc.StatusCode.UNKNOWN, str(error), None
    retry_s = None
    if status := rpc_status.from_call(error):  # a connection that broke brings none
        retry_s = _NEVER if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED else None
        for detail in status.details:
            info = RetryInfo()
            if detail.Unpack(info):
                retry_s = info.retry_delay.ToTimedelta().total_seconds()
    return error.code(), error.details() or "", retry_s


@contextmanager
def _connected(address: str, token: str, tls: Tls | None) -> Generator[pb_grpc.IngestStub]:
    opened = (
        grpc.secure_channel(address, tls.credentials(), _OPTIONS) if tls else grpc.insecure_channel(address, _OPTIONS)
    )
    with opened as channel:
        yield pb_grpc.IngestStub(grpc.intercept_channel(channel, _Token(token)) if token else channel)


class _Token(grpc.UnaryUnaryClientInterceptor, grpc.StreamUnaryClientInterceptor):
    """Sends the bearer token with every call."""

    def __init__(self, token: str) -> None:
        self._metadata = (("authorization", f"Bearer {token}"),)

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(client_call_details._replace(metadata=self._metadata), request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(client_call_details._replace(metadata=self._metadata), request_iterator)


def _report(upload_id: str, receipt: pb.Receipt) -> UploadReport:
    return UploadReport(
        upload_id=upload_id,
        rows=receipt.rows,
        dead_rows=receipt.dead_rows,
        parts=receipt.parts,
        rejected=tuple((one.row, one.reason) for one in receipt.rejected),
        created_at=receipt.created_at.ToDatetime(tzinfo=UTC),
    )
