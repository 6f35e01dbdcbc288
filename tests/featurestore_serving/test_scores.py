"""Scores by entity keys: over HTTP and gRPC, while models are published, swapped and withdrawn."""

import json
import math
import threading
from collections.abc import Generator, Mapping
from datetime import timedelta
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.http as triton

import featurestore as fs
from featurestore.models.publish import ModelStore
from featurestore.online.redis_store import RedisOnlineStore
from featurestore_serving.pb import serving_pb2 as pb
from featurestore_serving.pb import serving_pb2_grpc as pb_grpc
from tests.featurestore.models.examples import linear, opaque, scoring
from tests.featurestore_serving.platform import NOW, Running, ask, rows, running, settings
from tests.services import eventually

pytestmark = pytest.mark.services

USER = fs.Entity("user", key="user_id")
EVENTS = fs.KafkaSource("events", timestamp="at", schema={"user_id": int, "score": float | None, "clicks": int | None})
VIEW = fs.FeatureView(
    "activity",
    USER,
    EVENTS,
    [fs.Feature("score", float, online=True, max_age="30d"), fs.Feature("clicks", int, online=True)],
)
RATIOS = fs.DerivedView(
    "ratios", inputs=[VIEW["score"]], request={"amount": float}, features=[fs.Feature("times", float, "amount * score")]
)
PLAIN = fs.Model("plain", [VIEW["clicks"], VIEW["score"]])
LENIENT = fs.Model(
    "lenient", [VIEW["clicks"], VIEW["score"]], missing={"clicks": 0, "score": math.nan}, expired={"score": -1}
)
DERIVED = fs.Model("derived", [RATIOS["times"], VIEW["clicks"]])
PROJECT = fs.Project((VIEW, RATIOS), (PLAIN, LENIENT, DERIVED))

ONE = {"model": "plain", "keys": {"user_id": [4]}}


@pytest.fixture
def store(redis_url: str) -> Generator[ModelStore]:
    """Users 1 to 9; 20 with an old score; 21 with a NULL; 22 with numbers no model of float32 takes."""
    online = RedisOnlineStore(redis_url)
    users: dict[str, Mapping[str, object]] = {str(n): {"score": n / 4, "clicks": n} for n in range(1, 10)}
    online.push(VIEW, rows(VIEW, {**users, "21": {"score": 1.0, "clicks": None}}), [1])
    online.push(VIEW, rows(VIEW, {"20": {"score": 1.0, "clicks": 5}}, age=timedelta(days=31)), [2])
    online.push(VIEW, rows(VIEW, {"22": {"score": 1e300, "clicks": 2}, "23": {"score": 1.0, "clicks": 2**60}}), [3])
    online.close()
    store = ModelStore(redis_url)
    for model in PROJECT.models:
        store.publish(*scoring(model, "1", linear(10, 1)), 1)
    yield store
    store.close()


@pytest.fixture
def server(store: ModelStore, redis_url: str, tmp_path: Path) -> Generator[Running]:
    with running(settings(redis_url, tmp_path, model_bytes=1_000_000), project=PROJECT) as one:
        yield one


def score(server: Running, body: object) -> tuple[int, dict]:
    reply = ask(server.port, "POST", "/v1/score", json.dumps(body).encode(), {"content-type": "application/json"})
    return reply.status, reply.json


def scores(server: Running, model: str, *users: int, **request: list[object]) -> list[float | str]:
    """The score of each user, or why there is none."""
    body = {"model": model, "keys": {"user_id": list(users)}, "request": request}
    status, reply = score(server, body)
    assert status == 200, reply
    return [row["reason"] if row["score"] is None else row["score"] for row in reply["rows"]]


# ---- one request


def test_a_score_comes_with_its_version_and_the_times_of_its_features(server: Running) -> None:
    _, reply = score(server, {"model": "plain", "keys": {"user_id": [4, 99]}})
    assert (reply["model"], reply["version"]) == ("plain", "1")
    known, unknown = reply["rows"]
    assert (known["score"], known["reason"]) == (41.0, None)
    assert {name: one["value"] for name, one in known["features"].items()} == {"clicks": 4, "score": 1.0}
    assert known["features"]["score"]["event_timestamp"] == NOW.isoformat().replace("+00:00", "Z")
    assert (unknown["score"], unknown["reason"]) == (None, "clicks is MISSING, score is MISSING")


def test_what_is_not_there_or_too_old_is_refused_unless_the_model_says_what_stands_in(server: Running) -> None:
    assert scores(server, "plain", 20, 21) == ["score is EXPIRED", "clicks is NULL"]
    assert scores(server, "lenient", 20, 21, 99) == [49.0, 1.0, "the score is nan"]


def test_numbers_the_model_cannot_take_harm_no_other_row(server: Running) -> None:
    [good, large, long] = scores(server, "plain", 1, 22, 23)
    assert good == 10.25
    assert "too large" in str(large)
    assert "above 2^53" in str(long)


def test_derived_features_take_their_request_values(server: Running) -> None:
    assert scores(server, "derived", 1, 2, amount=[2.0, 4.0]) == [0.5 * 10 + 1, 2.0 * 10 + 2]
    status, reply = score(server, {"model": "derived", "keys": {"user_id": [1]}})
    assert (status, "'amount' is missing" in reply["error"]["message"]) == (422, True)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"model": "nobody", "keys": {"user_id": [1]}}, 404, "no version of model 'nobody' is in production"),
        ({"keys": {"user_id": [1]}}, 422, "missing required field `model`"),
        ({"model": "plain", "keys": {}}, 422, "'user_id' is missing"),
        ({"model": "plain", "keys": {"user_id": ["1"]}}, 422, "it must be a whole number"),
        ({"model": "plain", "keys": {"user_id": [1]}, "features": ["score"]}, 422, "unknown field `features`"),
    ],
)
def test_a_request_that_cannot_be_answered_says_why(server: Running, body: object, status: int, message: str) -> None:
    found, reply = score(server, body)
    assert (found, message in reply["error"]["message"]) == (status, True)


def test_grpc_gives_the_same(server: Running) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.service.grpc_port}") as channel:
        stub = pb_grpc.ScoringStub(channel)
        keys = {"user_id": pb.KeyColumn(integers=pb.Integers(values=[4, 21]))}
        reply = stub.Score(pb.ScoreRequest(model="plain", keys=keys), timeout=10)
        assert (reply.version, reply.scores[0], list(reply.reasons)) == ("1", 41.0, ["", "clicks is NULL"])
        assert math.isnan(reply.scores[1])
        assert list(reply.features) == ["clicks", "score"]
        assert list(reply.columns[1].numbers.values) == [1.0, 1.0]
        assert reply.columns[1].event_timestamps_us[0] == int(NOW.timestamp() * 1_000_000)
        with pytest.raises(grpc.RpcError) as refused:
            stub.Score(pb.ScoreRequest(model="nobody", keys=keys), timeout=10)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


# ---- while models change


def test_a_model_is_scored_from_its_publication_to_its_withdrawal(server: Running, store: ModelStore) -> None:
    store.publish(*scoring(PLAIN, "2", linear(20, 1)), 2)
    eventually(lambda: scores(server, "plain", 4) == [81.0] or scores(server, "plain", 4) == [41.0])
    eventually(lambda: scores(server, "plain", 4) == [81.0])
    store.withdraw("plain", 3)
    eventually(lambda: score(server, ONE)[0] == 404)
    store.publish(*scoring(PLAIN, "3", linear(30, 1)), 4)
    eventually(lambda: score(server, ONE)[0] == 200)
    assert scores(server, "plain", 4) == [121.0]


def test_no_request_fails_and_no_model_is_mixed_while_versions_are_swapped(server: Running, store: ModelStore) -> None:
    """Version v scores v: from its number and its artifact, so that a mix would show."""
    replies: list[tuple[int, str, float]] = []
    inferred: list[tuple[str, float]] = []
    done = threading.Event()

    def ask_on() -> None:
        while not done.is_set():
            status, reply = score(server, {"model": "plain", "keys": {"user_id": [4, 5]}})
            version = reply.get("version", "")
            replies.extend((status, version, row["score"]) for row in reply.get("rows", [{"score": -1}]))

    def infer_on() -> None:
        """By tensors: the Open Inference Protocol's client."""
        tensor = triton.InferInput("inputs", [1, 2], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 2), np.float32))
        with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            while not done.is_set():
                found = client.infer("plain", [tensor])
                version = found.get_response()["model_version"]
                inferred.append((version, float(found.as_numpy("score").item())))

    threads = [threading.Thread(target=one) for one in (ask_on, ask_on, infer_on)]
    store.publish(*scoring(PLAIN, "100", linear(0, 0, intercept=100)), 100)
    eventually(lambda: scores(server, "plain", 4) == [100.0])
    for thread in threads:
        thread.start()
    for version in range(101, 113):
        store.publish(*scoring(PLAIN, str(version), linear(0, 0, intercept=version)), version)
        eventually(lambda now=version: scores(server, "plain", 4) == [float(now)])
    done.set()
    for thread in threads:
        thread.join(30)
    assert {status for status, _, _ in replies} == {200}
    assert all(float(version) == found for _, version, found in replies)
    assert len({version for _, version, _ in replies}) > 3
    assert all(float(version) == found for version, found in inferred)
    assert inferred[-1][0] == "112"  # it was answered to the end
    assert len({version for version, _ in inferred}) > 3


def test_a_model_that_cannot_be_read_or_loaded_leaves_the_loaded_one(
    server: Running, store: ModelStore, redis_url: str
) -> None:
    assert scores(server, "plain", 4) == [41.0]
    broken, _ = scoring(PLAIN, "2", b"no model")
    store.publish(broken, {"model": b"no model"}, 2)  # as if the gate had been asleep
    seen = server.service._models.refresh
    seen()
    assert scores(server, "plain", 4) == [41.0]
    store.publish(opaque("plain", "3", {"model": b"{}"}), {"model": b"{}"}, 3)
    seen()
    assert scores(server, "plain", 4) == [41.0]


def test_a_model_that_is_no_onnx_says_so(server: Running, store: ModelStore) -> None:
    store.publish(opaque("plain", "2", {"model": b"{}"}), {"model": b"{}"}, 2)
    status, reply = score(server, ONE)
    assert (status, reply["error"]["message"]) == (
        422, "model 'plain' is published as json; this server scores ONNX",
    )  # fmt: skip


def test_models_that_are_not_asked_for_make_room(store: ModelStore, redis_url: str, tmp_path: Path) -> None:
    data = linear(1, 1, padding=100_000)
    for model in PROJECT.models[:2]:
        store.publish(*scoring(model, "2", data), 2)
    with running(settings(redis_url, tmp_path, model_bytes=150_000), project=PROJECT) as server:

        def loads() -> float:
            return server.service._models._metrics.loads._value.get()

        for _ in range(3):
            assert scores(server, "plain", 1) == [1.25]
        assert loads() == 1
        assert scores(server, "lenient", 1) == [1.25]
        assert list(server.service._models._loaded) == ["lenient"]
        assert scores(server, "plain", 1) == [1.25]
        assert loads() == 3
        store.publish(*scoring(PLAIN, "3", linear(1, 1, padding=200_000)), 3)
        server.service._models.refresh()
        assert scores(server, "plain", 1) == [1.25]  # the version before, which fits
        assert scores(server, "lenient", 1) == [1.25]  # makes it go
        status, reply = score(server, ONE)
        assert (status, "FEATURESTORE_SERVER_MODEL_BYTES is 150000" in reply["error"]["message"]) == (422, True)


# ---- features of another version


def test_a_version_that_was_trained_on_another_view_is_refused_with_the_place(
    server: Running, store: ModelStore
) -> None:
    made, artifacts = scoring(PLAIN, "2", linear(1, 1))
    object.__setattr__(made, "view_versions", {"activity": 7})
    store.publish(made, artifacts, 2)
    status, reply = score(server, ONE)
    message = reply["error"]["message"]
    assert (status, "version 2 of plain does not fit this server's project: view 'activity' version 7" in message) == (
        422, True,
    )  # fmt: skip
