"""Features over gRPC."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from featurestore_serving.pb import serving_pb2 as pb
from featurestore_serving.pb import serving_pb2_grpc as pb_grpc
from tests.featurestore_serving.platform import NOW, Running, running, settings
from tests.services import eventually

pytestmark = pytest.mark.services

TIME = int(NOW.timestamp()) * 1_000_000 + NOW.microsecond


@contextmanager
def stub(server: Running) -> Generator[pb_grpc.FeaturesStub]:
    with grpc.insecure_channel(f"127.0.0.1:{server.service.grpc_port}") as channel:
        yield pb_grpc.FeaturesStub(channel)


def whole(*values: int) -> pb.KeyColumn:
    return pb.KeyColumn(integers=pb.Integers(values=values))


def texts(*values: str) -> pb.KeyColumn:
    return pb.KeyColumn(texts=pb.Texts(values=values))


def test_values_statuses_and_times_by_column(server: Running) -> None:
    request = pb.GetFeaturesRequest(features=["activity"], keys={"user_id": whole(3, 200, 999)})
    with stub(server) as features:
        reply = features.GetFeatures(request, timeout=10)
    assert list(reply.features) == ["score", "clicks", "is_new", "city", "visits_1h"]
    score, clicks, is_new, city, visits = reply.columns
    assert list(score.numbers.values) == [0.75, 1.0, 0.0]
    assert list(clicks.integers.values) == [3, 0, 0]
    assert list(is_new.truths.values) == [False, True, False]
    assert list(city.texts.values) == ["city 3", "", ""]
    assert list(visits.integers.values) == [1, 0, 0]
    assert list(clicks.statuses) == [pb.STATUS_PRESENT, pb.STATUS_NULL, pb.STATUS_MISSING]
    assert list(city.statuses) == [pb.STATUS_PRESENT, pb.STATUS_EXPIRED, pb.STATUS_MISSING]
    assert list(score.event_timestamps_us) == [TIME, TIME - 31 * 86_400_000_000, 0]


def test_models_and_derived_features(server: Running) -> None:
    with stub(server) as features:
        reply = features.GetFeatures(pb.GetFeaturesRequest(model="risk", keys={"user_id": whole(4)}), timeout=10)
        assert list(reply.features) == ["clicks", "score"]
        request = pb.GetFeaturesRequest(
            features=["noted", "per_click"],
            keys={"user_id": whole(8), "shop": texts("x")},
            request={
                "amount": pb.RequestColumn(values=[pb.Value(integer=3)]),
                "note": pb.RequestColumn(values=[pb.Value()]),
            },
        )
        noted, per_click = features.GetFeatures(request, timeout=10).columns
    assert list(noted.statuses) == [pb.STATUS_NULL]
    assert list(per_click.numbers.values) == [3 * 2.0 / 8]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (pb.GetFeaturesRequest(features=["scor"], keys={"user_id": whole(1)}), "did you mean 'score'?"),
        (pb.GetFeaturesRequest(features=["score"], keys={"user_id": texts("1")}), "must be a whole number"),
        (pb.GetFeaturesRequest(features=["score"], keys={"user_id": pb.KeyColumn()}), "neither integers nor texts"),
        (pb.GetFeaturesRequest(features=["score"]), "'user_id' is missing"),
        (pb.GetFeaturesRequest(features=["score"], keys={"user_id": whole(*range(1001))}), "at most 1000"),
        (pb.GetFeaturesRequest(), "one of them"),
    ],
)
def test_what_cannot_be_answered_is_an_invalid_argument(
    server: Running, request_: pb.GetFeaturesRequest, message: str
) -> None:
    with stub(server) as features, pytest.raises(grpc.RpcError) as refused:
        features.GetFeatures(request_, timeout=10)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert message in refused.value.details()


def test_a_request_that_is_too_large(server: Running) -> None:
    request = pb.GetFeaturesRequest(features=["score"], keys={"user_id": texts("x" * 2**21)})
    with stub(server) as features, pytest.raises(grpc.RpcError) as refused:
        features.GetFeatures(request, timeout=10)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_token_is_asked_for_but_not_by_the_health_check(filled: str, data: Path) -> None:
    request = pb.GetFeaturesRequest(features=["score"], keys={"user_id": whole(1)})
    with running(settings(filled, data, token="s3cret")) as server:
        address = f"127.0.0.1:{server.service.grpc_port}"
        with grpc.insecure_channel(address) as channel:
            features = pb_grpc.FeaturesStub(channel)
            for sent in ((), (("authorization", "Bearer wrong"),)):
                with pytest.raises(grpc.RpcError) as refused:
                    features.GetFeatures(request, timeout=10, metadata=sent)
                assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
                assert "s3cret" not in refused.value.details()
            known = (("authorization", "Bearer s3cret"),)
            assert features.GetFeatures(request, timeout=10, metadata=known).columns[0].statuses == [pb.STATUS_PRESENT]
            health = health_pb2_grpc.HealthStub(channel)
            serving = health_pb2.HealthCheckResponse.SERVING
            check = health_pb2.HealthCheckRequest(service="featurestore.v1.Features")
            eventually(lambda: health.Check(check, timeout=5).status == serving)
