"""Features over gRPC: the service, and the server that offers it."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore

import grpc
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc

from featurestore.errors import FeatureStoreError, SettingsError, TerminalError
from featurestore.settings import ServerSettings
from featurestore_serving.auth import Handler, Token, TokenInterceptor
from featurestore_serving.features import Features
from featurestore_serving.messages import MessageInterceptor
from featurestore_serving.metrics import ServerMetrics
from featurestore_serving.protobuf import feature_request, features_reply, score_reply, score_request
from featurestore_serving.refusals import GRPC_STATUS, RETRY_AFTER_S, Reason, RefusedError, Transport, reason_of
from featurestore_serving.scores import Scores

FEATURES, SCORING = "featurestore.v1.Features", "featurestore.v1.Scoring"
GRACE_S = 20.0  # for calls under way when the server drains


class Calls:
    """Translates; what the calls do stands in `features` and `scores`."""

    def __init__(self, features: Features, scores: Scores, metrics: ServerMetrics, *, threads: int) -> None:
        self._features, self._scores, self._metrics = features, scores, metrics
        self._places = Semaphore(threads)

    def handlers(self) -> Sequence[grpc.GenericRpcHandler]:
        """Of the services; what comes and what goes are bytes."""
        made = grpc.method_handlers_generic_handler
        return [
            made(FEATURES, {"GetFeatures": self._handler(self._features_reply)}),
            made(SCORING, {"Score": self._handler(self._score_reply)}),
        ]

    def _handler(self, reply: Callable[[bytes], bytes]) -> Handler:
        """Count a call, and end it with the status of the error that its answer raises."""

        def call(request: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                with self._metrics.observed(Transport.GRPC), self._places:
                    if not context.is_active():  # its deadline passed while it waited for a place
                        raise RefusedError(Reason.LATE, "the deadline passed before the call began")
                    return reply(request)
            except FeatureStoreError as error:
                reason = reason_of(error)
                if reason in RETRY_AFTER_S:
                    context.set_trailing_metadata((("retry-after", str(RETRY_AFTER_S[reason])),))
                context.abort(GRPC_STATUS[reason], str(error))

        return grpc.unary_unary_rpc_method_handler(call)

    def _features_reply(self, request: bytes) -> bytes:
        answer = self._features.answer(feature_request(request))
        self._metrics.answered(Transport.GRPC, len(answer.rows))
        return features_reply(answer)

    def _score_reply(self, request: bytes) -> bytes:
        answer = self._scores.answer(score_request(request))
        self._metrics.answered(Transport.GRPC, len(answer.scores))
        return score_reply(answer)


class GrpcServer:
    """Serves until it is stopped."""

    def __init__(
        self,
        features: Features,
        scores: Scores,
        token: Token,
        settings: ServerSettings,
        metrics: ServerMetrics,
        *,
        shared: bool,
    ) -> None:
        self._address = settings.grpc_address
        # Who watches holds a thread until it has said what, for ever if it does not: none of the others.
        self._health = grpc_health.HealthServicer(
            experimental_non_blocking=True, experimental_thread_pool=ThreadPoolExecutor(1, thread_name_prefix="watch")
        )
        self._messages = MessageInterceptor(settings.timeout_s)
        self._server = grpc.server(
            ThreadPoolExecutor(settings.max_requests, thread_name_prefix="grpc"),
            interceptors=[self._messages, *([TokenInterceptor(token)] if token.is_asked else [])],
            options=_options(settings, shared=shared),
            maximum_concurrent_rpcs=settings.max_requests,  # above it, RESOURCE_EXHAUSTED
        )
        self._server.add_generic_rpc_handlers(Calls(features, scores, metrics, threads=settings.threads).handlers())
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.port = _listen(self._server, settings)

    def start(self) -> None:
        self._server.start()
        self._messages.start()

    def tell(self, *, serving: bool) -> None:
        """What the health service says."""
        states = health_pb2.HealthCheckResponse
        for service in ("", FEATURES, SCORING):
            self._health.set(service, states.SERVING if serving else states.NOT_SERVING)

    def stop(self, grace_s: float | None = GRACE_S) -> None:
        """Take no new calls, finish those under way within the grace, and end."""
        self._server.stop(grace_s).wait((grace_s or 0) + 5)
        self._messages.stop()


def _options(settings: ServerSettings, *, shared: bool) -> Sequence[tuple[str, int]]:
    return (
        ("grpc.max_receive_message_length", settings.max_bytes),
        ("grpc.so_reuseport", int(shared)),  # a second server on the port is a mistake, unless workers share it
        ("grpc.max_concurrent_streams", settings.max_requests),
        ("grpc.keepalive_time_ms", 30_000),  # finds out that a client has vanished
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 5),
    )


def _listen(server: grpc.Server, settings: ServerSettings) -> int:
    try:
        if not settings.tls_certificate_path:
            return server.add_insecure_port(settings.grpc_address)
        ca = Path(settings.tls_client_ca_path).read_bytes() if settings.tls_client_ca_path else None
        pair = (Path(settings.tls_key_path).read_bytes(), Path(settings.tls_certificate_path).read_bytes())
        credentials = grpc.ssl_server_credentials([pair], root_certificates=ca, require_client_auth=ca is not None)
        return server.add_secure_port(settings.grpc_address, credentials)
    except OSError as error:
        raise SettingsError(f"FEATURESTORE_SERVER_TLS_…_PATH: {error}") from error
    except RuntimeError as error:
        raise TerminalError(f"cannot listen at {settings.grpc_address}; is something else there?") from error
