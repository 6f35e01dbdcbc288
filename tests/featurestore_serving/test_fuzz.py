"""Requests made up from the server's own description: whatever comes, the reply is one that it describes."""

import json
from collections.abc import Generator

import grpc
import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, strategies
from schemathesis.checks import CHECKS, load_all_checks

from featurestore_serving.pb import serving_pb2 as pb
from tests.featurestore_serving.platform import Running

pytestmark = [pytest.mark.services, pytest.mark.slow]

EXAMPLES = 150

load_all_checks()


@pytest.mark.parametrize("seed", [1])
def test_replies_are_those_of_the_description(server: Running, seed: int) -> None:
    address = f"http://127.0.0.1:{server.port}"
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    checks = [
        one
        for one in CHECKS.get_all()
        if one.__name__
        in {
            "status_code_conformance",
            "content_type_conformance",
            "response_schema_conformance",
            "response_headers_conformance",
        }
    ]
    for found in schema.get_all_operations():
        operation = found.ok()

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(case=operation.as_strategy())
        def ask(case: schemathesis.Case) -> None:
            reply = case.call(timeout=20)
            assert reply.status_code != 500
            case.validate_response(reply, checks=checks)

        ask()
    assert server.get("/ready").status == 200


scalars = strategies.one_of(
    strategies.none(),
    strategies.booleans(),
    strategies.integers(),
    strategies.integers(1, 100),
    strategies.floats(),
    strategies.text(),
)
names = strategies.sampled_from(["score", "activity", "clicks", "per_click", "chance", "visits_1h", "last_score", "x"])
columns = strategies.dictionaries(
    strategies.sampled_from(["user_id", "shop", "amount", "note", ""]) | strategies.text(),
    strategies.lists(scalars, max_size=4) | scalars,
    max_size=4,
)
bodies = strategies.fixed_dictionaries(
    {"keys": columns},
    optional={"features": strategies.lists(names | strategies.text(), max_size=4), "request": columns, "model": names},
)


@hypothesis.settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(body=bodies)
def test_values_are_right_or_there_is_a_reason(server: Running, body: dict[str, object]) -> None:
    """Half-right requests, which a description alone makes too seldom."""
    reply = server.post(json.dumps(body).encode())
    assert reply.status in {200, 400, 413, 422}, reply.body
    if reply.status != 200:
        assert len(reply.message) < 1_500
        return
    rows = reply.json["rows"]
    users = body["keys"].get("user_id", [])
    assert len(rows) == len(users)
    for user, row in zip(users, rows, strict=True):
        assert list(row) == reply.json["features"]
        if "clicks" in row and row["clicks"]["status"] == "PRESENT" and user <= 100:
            assert row["clicks"]["value"] == user


@hypothesis.settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(keys=columns)
def test_scores_are_right_or_there_is_a_reason(server: Running, keys: dict[str, object]) -> None:
    body = json.dumps({"model": "risk", "keys": keys}).encode()
    reply = server.ask("POST", "/v1/score", body, {"content-type": "application/json"})
    assert reply.status in {200, 400, 422}, reply.body
    for row in reply.json.get("rows", []):
        values = [one["value"] for one in row["features"].values()]
        if row["reason"] is None:
            assert row["score"] == 10 * values[0] + values[1]
        else:
            assert row["score"] is None


@hypothesis.settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(body=strategies.binary(max_size=300))
def test_bytes_that_mean_nothing_are_refused(server: Running, body: bytes) -> None:
    assert server.post(body).status in {400, 413, 422}


@pytest.fixture(scope="module")
def channel(server: Running) -> Generator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{server.service.grpc_port}") as one:
        yield one


messages = strategies.builds(
    pb.GetFeaturesRequest,
    features=strategies.lists(names | strategies.text(max_size=9), max_size=3),
    model=strategies.sampled_from(["", "", "risk", "x"]),
    keys=strategies.dictionaries(
        strategies.sampled_from(["user_id", "user_id", "shop", ""]),
        strategies.builds(
            pb.KeyColumn, integers=strategies.builds(pb.Integers, values=strategies.lists(strategies.integers(0, 100)))
        )
        | strategies.builds(
            pb.KeyColumn, texts=strategies.builds(pb.Texts, values=strategies.lists(strategies.text(max_size=9)))
        )
        | strategies.just(pb.KeyColumn()),
        max_size=2,
    ),
)


@hypothesis.settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(message=messages)
def test_values_over_grpc_are_right_or_there_is_a_reason(
    server: Running, channel: grpc.Channel, message: pb.GetFeaturesRequest
) -> None:
    reply = called(channel, "Features/GetFeatures", message.SerializeToString())
    if reply is not None:
        right(message, pb.GetFeaturesResponse.FromString(reply))


@pytest.mark.parametrize("method", ["Features/GetFeatures", "Scoring/Score"])
@hypothesis.settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(message=messages, at=strategies.integers(0, 60), byte=strategies.integers(0, 255), cut=strategies.integers(0, 9))
def test_flipped_and_cut_bytes_over_grpc_are_answered(
    server: Running, channel: grpc.Channel, method: str, message: pb.GetFeaturesRequest, at: int, byte: int, cut: int
) -> None:
    body = bytearray(message.SerializeToString())
    body[at : at + 1] = bytes([byte])
    called(channel, method, bytes(body[: len(body) - cut]))


def called(channel: grpc.Channel, method: str, body: bytes) -> bytes | None:
    """The reply, or None if the request is refused as one that cannot be answered, with a reason."""
    future = channel.unary_unary(f"/featurestore.v1.{method}").future(body, timeout=20)
    if future.code() is grpc.StatusCode.OK:
        return future.result()
    assert future.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}, future.details()
    assert future.details()
    return None


def right(asked: pb.GetFeaturesRequest, reply: pb.GetFeaturesResponse) -> None:
    users = asked.keys["user_id"].integers.values
    for name, column in zip(reply.features, reply.columns, strict=True):
        assert len(column.statuses) == len(users)
        if name == "clicks":
            assert list(column.integers.values) == list(users)  # of user 0, who is not there, 0


def test_the_description_is_valid(server: Running) -> None:
    reply = requests.get(f"http://127.0.0.1:{server.port}/openapi.json", timeout=10)
    schema = schemathesis.openapi.from_dict(reply.json())
    schema.validate()
    assert len(list(schema.get_all_operations())) == 6
