"""The feature server: both transports over one store."""

import logging
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack

from prometheus_client import CollectorRegistry, generate_latest

from featurestore.definitions.project import Project
from featurestore.errors import FeatureStoreError, SettingsError, TransientError
from featurestore.models.publish import ModelStore
from featurestore.process.health import Health
from featurestore.settings import ServerSettings, Settings
from featurestore.store import Store, connect
from featurestore_serving.auth import Token
from featurestore_serving.features import Features, Limits
from featurestore_serving.gate import Gate
from featurestore_serving.grpc_api import GrpcServer
from featurestore_serving.http_api import HttpApi
from featurestore_serving.http_door import Door, HttpLimits
from featurestore_serving.http_server import HttpServer, allow_files, listen
from featurestore_serving.inference import Inference
from featurestore_serving.inference_api import InferenceApi
from featurestore_serving.metrics import ModelMetrics, ServerMetrics
from featurestore_serving.models import ServedModels
from featurestore_serving.restore import restore
from featurestore_serving.scores import Scores

log = logging.getLogger(__name__)

PROBE_S = 1.0  # how often the store is asked whether it is there


class FeatureServer:
    """The server; see `featurestore.process.daemon.Service`. It answers before the store does, with 503 and why."""

    def __init__(
        self,
        settings: Settings,
        project: Project,
        *,
        health: Health,
        registry: CollectorRegistry,
        listener: socket.socket | None = None,
        scrape: Callable[[], bytes] | None = None,
    ) -> None:
        self._settings, self._project, self._health = settings, project, health
        self._registry, self._listener = registry, listener
        self._scrape = scrape or (lambda: generate_latest(registry))
        self._metrics = ServerMetrics(registry)
        self._open = ExitStack()
        self._pause = threading.Event()
        self._probe = _probe(project)
        self._http: HttpServer | None = None
        self._grpc: GrpcServer | None = None
        self._store: Store | None = None
        redis = settings.redis
        self._published = ModelStore(redis.models, namespace=settings.namespace, timeout_s=redis.timeout_s)
        self._models = ServedModels(self._published, settings.server.model_bytes, ModelMetrics(registry))
        self._models_looked_up = settings.server.model_bytes == 0
        self.port = self.grpc_port = 0

    def start(self) -> None:
        server = self._settings.server
        check_settings(server)
        allow_files(server.max_connections)
        self._store = self._open.enter_context(connect(self._project, self._settings))
        limits = Limits(rows=server.max_rows, features=server.max_features, values=server.max_values)
        features, token = Features(self._store, limits), Token(server.token)
        gate = Gate(threads=server.threads, places=server.max_requests)
        self._open.callback(gate.close)
        self._open.callback(self._published.close)
        scores = Scores(self._project, features, self._models)
        door = Door(gate, token, HttpLimits(body_bytes=server.max_bytes, timeout_s=server.timeout_s), self._metrics)
        inference = InferenceApi(Inference(self._models, server.max_rows), door, self._health)
        api = HttpApi(features, scores, inference, door, asked=limits, health=self._health, scrape=self._scrape)
        http = HttpServer(api.application(), server)
        if server.grpc_address:
            self._grpc = GrpcServer(features, scores, token, server, self._metrics, shared=server.workers > 1)
            self.grpc_port = self._grpc.port
            self._grpc.start()
        listener = self._listener or listen(server.address)
        self.port = listener.getsockname()[1]
        http.start(listener)
        self._http = http
        log.info("listening at %s, gRPC at %s", server.address, server.grpc_address or "–")

    def step(self) -> bool:
        """Ask the store for a value, and for the models once; whether it answers is whether this server is ready."""
        if self._http is None or not self._http.runs:
            raise RuntimeError("the HTTP server has ended")
        try:
            self._probe(self._store)
            self._look_models_up()
        except TransientError:
            self._tell(serving=False)
            raise  # asked again, with back-off
        except FeatureStoreError as error:  # a wrong password, say: whoever can change it may do so meanwhile
            self._tell(serving=False)
            self._health.not_ready(str(error))
            return False
        self._tell(serving=True)
        self._health.ready()
        return False

    def drain(self) -> None:
        self._health.not_ready("stopping")
        self._tell(serving=False)
        self._pause.wait(self._settings.server.drain_s)  # so that whoever sends requests here sees it first
        if self._http is not None:
            self._http.stop()
        if self._grpc is not None:
            self._grpc.stop()

    def stop(self) -> None:
        if self._http is not None:
            self._http.stop()
        if self._grpc is not None:
            self._grpc.stop(None)
        self._open.close()

    def _look_models_up(self) -> None:
        if not self._models_looked_up:
            restore(self._settings, self._project, self._published)
            self._models_looked_up = True
        self._models.refresh()

    def _tell(self, *, serving: bool) -> None:
        if self._grpc is not None:
            self._grpc.tell(serving=serving)


def _probe(project: Project) -> Callable[[Store | None], object]:
    """A read of one feature of an entity that need not be there."""
    view = next((view for view in project.feature_views if view.online_features), None)

    def probe(store: Store | None) -> object:
        if store is None or view is None:
            return None
        feature = features[0]
        return store.online({column: ["0"] for column in view.entity.key_columns}, [feature])

    features = [view[view.online_features[0].name]] if view is not None else []
    return probe


def check_settings(server: ServerSettings) -> None:
    """Raises: SettingsError: some of them do not go together."""
    if bool(server.tls_certificate_path) != bool(server.tls_key_path):
        raise SettingsError("FEATURESTORE_SERVER_TLS_CERTIFICATE_PATH and …_TLS_KEY_PATH go together; one is missing")
    if server.tls_client_ca_path and not server.tls_certificate_path:
        raise SettingsError("FEATURESTORE_SERVER_TLS_CLIENT_CA_PATH needs FEATURESTORE_SERVER_TLS_CERTIFICATE_PATH")
    for name in (
        "workers",
        "threads",
        "max_requests",
        "max_connections",
        "max_rows",
        "max_features",
        "max_values",
        "max_bytes",
    ):
        if getattr(server, name) < 1:
            raise SettingsError(f"FEATURESTORE_SERVER_{name.upper()} is at least 1")
