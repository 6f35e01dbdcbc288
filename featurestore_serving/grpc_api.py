"""Features over gRPC: the service, and the server that offers it."""

import math
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc

from featurestore.definitions.dtypes import ScalarType
from featurestore.errors import FeatureStoreError, SettingsError, TerminalError
from featurestore.online.values import Scalar
from featurestore.online.values import Status as State
from featurestore.settings import ServerSettings
from featurestore_serving.auth import Token, TokenInterceptor
from featurestore_serving.features import Answer, FeatureRequest, Features
from featurestore_serving.metrics import ServerMetrics
from featurestore_serving.pb import serving_pb2 as pb
from featurestore_serving.pb import serving_pb2_grpc as pb_grpc
from featurestore_serving.refusals import GRPC_STATUS, RETRY_AFTER_S, Reason, RefusedError, Transport, reason_of
from featurestore_serving.scores import ScoreAnswer, ScoreRequest, Scores

SERVICES = tuple(service.full_name for service in pb.DESCRIPTOR.services_by_name.values())
GRACE_S = 20.0  # for calls under way when the server drains

_STATUS: Mapping[str, pb.Status] = {
    State.PRESENT: pb.STATUS_PRESENT,
    State.NULL: pb.STATUS_NULL,
    State.MISSING: pb.STATUS_MISSING,
    State.EXPIRED: pb.STATUS_EXPIRED,
}
_MEMBER: Mapping[ScalarType, str] = {float: "numbers", int: "integers", str: "texts", bool: "truths"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class FeaturesServicer(pb_grpc.FeaturesServicer):
    """Translates; what a call does stands in `features`."""

    def __init__(self, features: Features, metrics: ServerMetrics) -> None:
        self._features, self._metrics = features, metrics

    def GetFeatures(self, request: pb.GetFeaturesRequest, context: grpc.ServicerContext) -> pb.GetFeaturesResponse:  # noqa: N802
        with _answering(self._metrics, context):
            answer = self._features.answer(_request(request))
            self._metrics.answered(Transport.GRPC, len(answer.rows))
            return _response(answer)
        raise AssertionError("abort raises")


class ScoringServicer(pb_grpc.ScoringServicer):
    """Translates; what a call does stands in `scores`."""

    def __init__(self, scores: Scores, metrics: ServerMetrics) -> None:
        self._scores, self._metrics = scores, metrics

    def Score(self, request: pb.ScoreRequest, context: grpc.ServicerContext) -> pb.ScoreResponse:  # noqa: N802
        with _answering(self._metrics, context):
            answer = self._scores.answer(_score_request(request))
            self._metrics.answered(Transport.GRPC, len(answer.scores))
            return _score_response(answer)
        raise AssertionError("abort raises")


@contextmanager
def _answering(metrics: ServerMetrics, context: grpc.ServicerContext) -> Generator[None]:
    """Count a call, and end it with the status of the error that its answer raises."""
    try:
        with metrics.observed(Transport.GRPC):
            if not context.is_active():  # its deadline passed while it waited for a thread
                raise RefusedError(Reason.LATE, "the deadline passed before the call began")
            yield
    except FeatureStoreError as error:
        reason = reason_of(error)
        if reason in RETRY_AFTER_S:
            context.set_trailing_metadata((("retry-after", str(RETRY_AFTER_S[reason])),))
        context.abort(GRPC_STATUS[reason], str(error))


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
        self._health = grpc_health.HealthServicer(experimental_non_blocking=True)
        self._server = grpc.server(
            ThreadPoolExecutor(settings.threads, thread_name_prefix="grpc"),
            interceptors=[TokenInterceptor(token)] if token.is_asked else [],
            options=_options(settings, shared=shared),
            maximum_concurrent_rpcs=settings.max_requests,  # above it, RESOURCE_EXHAUSTED
        )
        pb_grpc.add_FeaturesServicer_to_server(FeaturesServicer(features, metrics), self._server)
        pb_grpc.add_ScoringServicer_to_server(ScoringServicer(scores, metrics), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.port = _listen(self._server, settings)

    def start(self) -> None:
        self._server.start()

    def tell(self, *, serving: bool) -> None:
        """What the health service says."""
        states = health_pb2.HealthCheckResponse
        for service in ("", *SERVICES):
            self._health.set(service, states.SERVING if serving else states.NOT_SERVING)

    def stop(self, grace_s: float | None = GRACE_S) -> None:
        """Take no new calls, finish those under way within the grace, and end."""
        self._server.stop(grace_s).wait((grace_s or 0) + 5)


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


def _request(request: pb.GetFeaturesRequest) -> FeatureRequest:
    return FeatureRequest(
        features=list(request.features),
        model=request.model,
        keys={name: _key_values(name, column) for name, column in request.keys.items()},
        request={name: [_scalar(value) for value in column.values] for name, column in request.request.items()},
    )


def _score_request(request: pb.ScoreRequest) -> ScoreRequest:
    return ScoreRequest(
        model=request.model,
        keys={name: _key_values(name, column) for name, column in request.keys.items()},
        request={name: [_scalar(value) for value in column.values] for name, column in request.request.items()},
    )


def _key_values(name: str, column: pb.KeyColumn) -> Sequence[int] | Sequence[str]:
    kind = column.WhichOneof("values")
    if kind == "integers":
        return list(column.integers.values)
    if kind == "texts":
        return list(column.texts.values)
    raise RefusedError(Reason.INVALID, f"key column {name!r} has neither integers nor texts")


def _scalar(value: pb.Value) -> Scalar | None:
    kind = value.WhichOneof("kind")
    return None if kind is None else getattr(value, kind)


def _score_response(answer: ScoreAnswer) -> pb.ScoreResponse:
    response = pb.ScoreResponse(
        model=answer.model,
        version=answer.version,
        scores=[math.nan if score is None else score for score in answer.scores],
        reasons=[reason or "" for reason in answer.reasons],
        features=answer.read.names,
    )
    _add_columns(response, answer.read)
    return response


def _response(answer: Answer) -> pb.GetFeaturesResponse:
    response = pb.GetFeaturesResponse(features=answer.names)
    _add_columns(response, answer)
    return response


def _add_columns(response: pb.GetFeaturesResponse | pb.ScoreResponse, answer: Answer) -> None:
    micros = _Micros()
    for name, dtype in zip(answer.names, answer.dtypes, strict=True):
        cells = [row[name] for row in answer.rows]
        # Filled in place, which takes a quarter of the time of messages that are made and then copied.
        column = response.columns.add()
        empty = dtype()
        getattr(column, _MEMBER[dtype]).values.extend([empty if one.value is None else one.value for one in cells])
        column.statuses.extend([_STATUS[one.status] for one in cells])
        column.event_timestamps_us.extend([micros[one.event_timestamp] for one in cells])


class _Micros(dict[datetime | None, int]):
    """Times of a reply in microseconds; the values of one row and view have the same."""

    def __missing__(self, time: datetime | None) -> int:
        self[time] = found = 0 if time is None else (time - _EPOCH) // _MICROSECOND
        return found
