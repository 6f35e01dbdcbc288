"""The gRPC service: files and small batches → landing zone. A reply follows durability."""

import logging
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry, ProcessCollector

from featurestore.definitions.project import Project, load_project
from featurestore.landing.zone import LandingZone
from featurestore.process.daemon import Daemon, run_until_signalled
from featurestore.process.health import Health
from featurestore.process.metrics import serve
from featurestore.settings import Settings
from ingest.grpc.auth import TokenInterceptor, Tokens
from ingest.grpc.events import Events
from ingest.grpc.servicer import IngestServicer
from ingest.grpc.streams import MessageInterceptor, Streams
from ingest.grpc.tls import listen
from ingest.grpc.uploads import Uploads
from ingest.metrics import IngestMetrics
from ingest.pb import ingest_pb2 as pb
from ingest.pb import ingest_pb2_grpc as pb_grpc

log = logging.getLogger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["Ingest"].full_name

_MESSAGE_BYTES = 4 << 20
_GRACE_S = 20.0  # for calls under way when the service drains
_SWEEP_S = 600.0
_OPTIONS = (
    ("grpc.max_receive_message_length", _MESSAGE_BYTES + 64 * 1024),
    ("grpc.so_reuseport", 0),  # a second service on the same port is a mistake, not a helper
    ("grpc.keepalive_time_ms", 30_000),  # finds out that a sender has vanished
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


class GrpcDaemon:
    """The service as a process; see `featurestore.process.daemon.Service`."""

    def __init__(self, settings: Settings, project: Project, *, health: Health, registry: CollectorRegistry) -> None:
        self._settings, self._health = settings, health
        zone, metrics = LandingZone.of(settings), IngestMetrics(registry)
        self._uploads = Uploads(settings, project, zone, metrics)
        self._events = Events(settings, project, zone, metrics, self._uploads)
        self._tokens = Tokens(settings.grpc)
        self._streams = Streams(
            per_peer=settings.grpc.peer_streams,
            longest_silence_s=settings.grpc.silence_s,
            slowest_bytes_s=settings.grpc.slowest_bytes_s,
        )
        self._servicer = IngestServicer(self._uploads, self._events, self._tokens, self._streams)
        # Who watches holds a thread only until it has sent its message; without it, for ever: none of the others.
        self._grpc_health = grpc_health.HealthServicer(
            experimental_non_blocking=True, experimental_thread_pool=_threads(1, "watch")
        )
        self._server: grpc.Server | None = None
        self._sweep_at = 0.0
        self.port = 0

    def start(self) -> None:
        grpc_settings = self._settings.grpc
        self._settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._server = grpc.server(
            _threads(grpc_settings.threads, "streams"),
            interceptors=[
                TokenInterceptor(self._tokens),
                MessageInterceptor(self._streams, _threads(grpc_settings.threads, "calls")),
            ],
            options=_OPTIONS,
            maximum_concurrent_rpcs=4 * grpc_settings.threads,
        )
        pb_grpc.add_IngestServicer_to_server(self._servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._grpc_health, self._server)
        if grpc_settings.reflection:
            reflection.enable_server_reflection(
                (SERVICE, grpc_health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
            )
        self.port = listen(self._server, grpc_settings)
        self._server.start()
        log.info("listening at %s", grpc_settings.address)

    def step(self) -> bool:
        if time.monotonic() >= self._sweep_at:
            self._uploads.sweep()
            self._sweep_at = time.monotonic() + _SWEEP_S
        if cut := self._streams.cut_slow():
            log.info("cut %d calls: their senders were silent or too slow", cut)
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


def _threads(count: int, name: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix=name)


def main(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; calls under way are finished."""
    registry, health = CollectorRegistry(), Health()
    ProcessCollector(registry=registry)
    service = GrpcDaemon(settings, load_project(settings.project), health=health, registry=registry)
    with serve(settings.metrics_port, registry, health):
        return run_until_signalled(Daemon(service, health=health, idle_s=1.0))
