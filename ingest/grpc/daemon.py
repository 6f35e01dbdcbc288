"""The gRPC service: files and small batches → landing zone. A reply follows durability."""

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry, ProcessCollector

from featurestore.definitions.project import Project, load_project
from featurestore.errors import FeatureStoreError, TerminalError
from featurestore.landing.storage import open_storage
from featurestore.landing.zone import LandingZone
from featurestore.process.daemon import Daemon, run_until_signalled
from featurestore.process.health import Health
from featurestore.process.metrics import serve
from featurestore.settings import Settings
from ingest.grpc.auth import TokenInterceptor
from ingest.grpc.events import land_events
from ingest.grpc.refusals import code_of
from ingest.grpc.spool import Announced, Format
from ingest.grpc.uploads import Status, Uploads
from ingest.metrics import IngestMetrics
from ingest.pb import ingest_pb2 as pb
from ingest.pb import ingest_pb2_grpc as pb_grpc

log = logging.getLogger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["Ingest"].full_name

_MESSAGE_BYTES = 4 << 20
_GRACE_S = 20.0  # for calls under way when the service drains
_SWEEP_S = 600.0
_LONGEST_S = 24 * 3600.0  # that a stream may take
_OPTIONS = (
    ("grpc.max_receive_message_length", _MESSAGE_BYTES + 64 * 1024),
    ("grpc.so_reuseport", 0),  # a second service on the same port is a mistake, not a helper
    ("grpc.keepalive_time_ms", 30_000),  # finds out that a sender has vanished
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)
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

    def __init__(self, uploads: Uploads, land: Callable[[str, str, list[bytes]], Status]) -> None:
        self._uploads, self._land = uploads, land

    def StartUpload(self, request: pb.StartUploadRequest, context: grpc.ServicerContext) -> pb.Upload:  # noqa: N802
        return _answered(context, lambda: _upload(request.upload, self._uploads.start(_announced(request))))

    def UploadFile(self, request_iterator: Iterator[pb.UploadFileRequest], context: grpc.ServicerContext) -> pb.Upload:  # noqa: N802
        def receive() -> pb.Upload:
            if (context.time_remaining() or _LONGEST_S + 1) > _LONGEST_S:
                raise TerminalError("send a deadline, of at most a day")
            first = next(request_iterator, pb.UploadFileRequest())
            if first.WhichOneof("part") != "upload":
                raise TerminalError("the first message of the stream names the upload")
            reference = first.upload
            status = self._uploads.receive(reference.source, reference.upload_id, _chunks(request_iterator))
            return _upload(reference, status)

        return _answered(context, receive)

    def GetUpload(self, request: pb.UploadReference, context: grpc.ServicerContext) -> pb.Upload:  # noqa: N802
        return _answered(context, lambda: _upload(request, self._uploads.status(request.source, request.upload_id)))

    def CancelUpload(self, request: pb.UploadReference, context: grpc.ServicerContext) -> pb.Upload:  # noqa: N802
        return _answered(context, lambda: _upload(request, self._uploads.cancel(request.source, request.upload_id)))

    def BatchEvents(self, request: pb.BatchEventsRequest, context: grpc.ServicerContext) -> pb.BatchEventsResponse:  # noqa: N802
        def land() -> pb.BatchEventsResponse:
            status = self._land(request.source, request.batch_id, list(request.records))
            return pb.BatchEventsResponse(receipt=_receipt(status))

        return _answered(context, land)


class GrpcDaemon:
    """The service as a process; see `featurestore.process.daemon.Service`."""

    def __init__(self, settings: Settings, project: Project, *, health: Health, registry: CollectorRegistry) -> None:
        self._settings, self._health = settings, health
        zone, metrics = LandingZone(open_storage(settings)), IngestMetrics(registry)
        self._uploads = Uploads(settings, project, zone, metrics)
        self._servicer = IngestServicer(
            self._uploads,
            lambda source, batch_id, records: land_events(
                source, batch_id, records, project=project, zone=zone, metrics=metrics, settings=settings.grpc
            ),
        )
        self._grpc_health = grpc_health.HealthServicer(experimental_non_blocking=True)
        self._server: grpc.Server | None = None
        self._sweep_at = 0.0
        self.port = 0

    def start(self) -> None:
        grpc_settings = self._settings.grpc
        self._settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._server = grpc.server(
            ThreadPoolExecutor(grpc_settings.threads, thread_name_prefix="grpc"),
            interceptors=[TokenInterceptor(grpc_settings.token)] if grpc_settings.token else [],
            options=_OPTIONS,
            maximum_concurrent_rpcs=2 * grpc_settings.threads,
        )
        pb_grpc.add_IngestServicer_to_server(self._servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._grpc_health, self._server)
        try:
            self.port = self._server.add_insecure_port(grpc_settings.address)
        except RuntimeError as error:
            raise TerminalError(f"cannot listen at {grpc_settings.address}; is something else there?") from error
        self._server.start()
        log.info("listening at %s", grpc_settings.address)

    def step(self) -> bool:
        if time.monotonic() >= self._sweep_at:
            self._uploads.sweep()
            self._sweep_at = time.monotonic() + _SWEEP_S
        free_bytes = shutil.disk_usage(self._settings.data_dir).free
        if free_bytes < self._settings.ingest.disk_reserve_bytes:
            self._tell(serving=False)
            self._health.not_ready(f"{free_bytes >> 20} MiB are left on the disk, less than the reserve")
        else:
            self._tell(serving=True)
            self._health.ready()
        return False

    def drain(self) -> None:
        self._tell(serving=False)
        if self._server is not None:
            self._server.stop(_GRACE_S).wait(_GRACE_S + 5)

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(None).wait(5)

    def _tell(self, *, serving: bool) -> None:
        states = health_pb2.HealthCheckResponse
        for service in ("", SERVICE):
            self._grpc_health.set(service, states.SERVING if serving else states.NOT_SERVING)


def _answered(context: grpc.ServicerContext, call: Callable[[], Reply]) -> Reply:
    """The call's reply, or its refusal as a status."""
    try:
        return call()
    except FeatureStoreError as error:
        context.abort(code_of(error), str(error))
    except grpc.RpcError:  # the sender went away; what came of its file is kept
        context.abort(grpc.StatusCode.CANCELLED, "cut by the sender")
    raise AssertionError("abort raises")


def _announced(request: pb.StartUploadRequest) -> Announced:
    if request.format not in _FORMATS:
        raise TerminalError("the format is one of Parquet, CSV, NDJSON")
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


def main(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; calls under way are finished."""
    registry, health = CollectorRegistry(), Health()
    ProcessCollector(registry=registry)
    service = GrpcDaemon(settings, load_project(settings.project), health=health, registry=registry)
    with serve(settings.metrics_port, registry, health):
        return run_until_signalled(Daemon(service, health=health, idle_s=1.0))
