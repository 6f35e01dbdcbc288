"""The calls of the .proto file: translated to what the service does, and back."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from featurestore.errors import FeatureStoreError, TerminalError
from ingest.grpc.auth import Tokens
from ingest.grpc.events import Events
from ingest.grpc.refusals import InvalidFieldError, RefusedError, abort
from ingest.grpc.spool import Announced, Format
from ingest.grpc.streams import Streams
from ingest.grpc.uploads import Status, Uploads
from ingest.pb import ingest_pb2 as pb
from ingest.pb import ingest_pb2_grpc as pb_grpc

_LONGEST_S = 24 * 3600.0  # that a stream may take
_FORMATS: dict[int, Format] = {
    pb.FILE_FORMAT_PARQUET: "parquet",
    pb.FILE_FORMAT_CSV: "csv",
    pb.FILE_FORMAT_NDJSON: "ndjson",
}
_STATES = {
    "open": pb.UPLOAD_STATE_OPEN,
    "landed": pb.UPLOAD_STATE_LANDED,
    "cancelled": pb.UPLOAD_STATE_CANCELLED,
}

Reply = TypeVar("Reply")


class IngestServicer(pb_grpc.IngestServicer):
    """Translates calls, which the .proto file names; what they do stands in `uploads` and `events`."""

    def __init__(self, uploads: Uploads, events: Events, tokens: Tokens, streams: Streams) -> None:
        self._uploads, self._events, self._tokens, self._streams = uploads, events, tokens, streams

    def StartUpload(self, request: pb.StartUploadRequest, context: grpc.ServicerContext) -> pb.Upload:  # noqa: N802
        def start() -> pb.Upload:
            self._tokens.check(context, request.upload.source)
            return _upload(request.upload, self._uploads.start(_announced(request)))

        return _answered(context, start)

    def UploadFile(self, request_iterator: Iterator[pb.UploadFileRequest], context: grpc.ServicerContext) -> pb.Upload:  # noqa: N802
        def receive() -> pb.Upload:
            if (context.time_remaining() or _LONGEST_S + 1) > _LONGEST_S:
                raise TerminalError("send a deadline, of at most a day")
            with self._streams.admitted(context) as stream:
                messages = stream.heard(request_iterator)
                first = next(messages, pb.UploadFileRequest())
                if first.WhichOneof("part") != "upload":
                    raise TerminalError("the first message of the stream names the upload")
                reference = first.upload
                self._tokens.check(context, reference.source)
                return _upload(
                    reference, self._uploads.receive(reference.source, reference.upload_id, _chunks(messages))
                )

        return _answered(context, receive)

    def GetUpload(self, request: pb.UploadReference, context: grpc.ServicerContext) -> pb.Upload:  # noqa: N802
        def status() -> pb.Upload:
            self._tokens.check(context, request.source)
            return _upload(request, self._uploads.status(request.source, request.upload_id))

        return _answered(context, status)

    def CancelUpload(self, request: pb.UploadReference, context: grpc.ServicerContext) -> pb.Upload:  # noqa: N802
        def cancel() -> pb.Upload:
            self._tokens.check(context, request.source)
            return _upload(request, self._uploads.cancel(request.source, request.upload_id))

        return _answered(context, cancel)

    def BatchEvents(self, request: pb.BatchEventsRequest, context: grpc.ServicerContext) -> pb.BatchEventsResponse:  # noqa: N802
        def land() -> pb.BatchEventsResponse:
            self._tokens.check(context, request.source)
            status = self._events.land(request.source, request.batch_id, list(request.records))
            return pb.BatchEventsResponse(receipt=_receipt(status))

        return _answered(context, land)


def _answered(context: grpc.ServicerContext, call: Callable[[], Reply]) -> Reply:
    """The call's reply, or its refusal as a status."""
    try:
        return call()
    except FeatureStoreError as error:
        abort(context, error)
    except grpc.RpcError:  # the sender went away, or was silent; what came of its file is kept
        abort(context, RefusedError(grpc.StatusCode.CANCELLED, "the stream was cut"))


def _announced(request: pb.StartUploadRequest) -> Announced:
    if request.format not in _FORMATS:
        raise InvalidFieldError("format", "the format is one of Parquet, CSV, NDJSON")
    return Announced(
        source=request.upload.source,
        upload_id=request.upload.upload_id,
        format=_FORMATS[request.format],
        size_bytes=request.size_bytes,
        sha256=request.sha256.hex(),
    )


def _chunks(requests: Iterator[pb.UploadFileRequest]) -> Iterator[pb.Chunk]:
    for request in requests:
        if request.WhichOneof("part") != "chunk":
            raise TerminalError("a stream sends one upload; its messages after the first are chunks")
        yield request.chunk


def _upload(reference: pb.UploadReference, status: Status) -> pb.Upload:
    return pb.Upload(
        upload=reference,
        state=_STATES[status.state],
        committed_bytes=status.committed_bytes,
        receipt=_receipt(status) if status.state == "landed" else None,
    )


def _receipt(status: Status) -> pb.Receipt:
    manifest = status.manifest
    if manifest is None:
        raise AssertionError("what has landed has a manifest")
    created_at = Timestamp()
    created_at.FromMicroseconds(manifest.created_at)
    return pb.Receipt(
        rows=manifest.rows,
        dead_rows=manifest.dead_rows,
        parts=len(manifest.parts),
        sha256=bytes.fromhex(manifest.sha256),
        created_at=created_at,
        rejected=[pb.RejectedRow(row=row, reason=reason) for row, reason in status.rejected],
    )
