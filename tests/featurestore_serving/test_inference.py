"""The Open Inference Protocol, by a client that was not written here."""

import json
from collections.abc import Generator

import numpy as np
import pytest
import tritonclient.http as triton
from onnx import TensorProto
from tritonclient.utils import InferenceServerException

from featurestore.models.example import example
from featurestore.models.publish import ModelStore
from tests.featurestore.models.examples import PROJECT, linear, promoted, scoring
from tests.featurestore_serving.platform import Running, running, settings
from tests.services import Redis

pytestmark = pytest.mark.services

MODEL = "credit_risk_v1"
ROWS = np.array([row.inputs for row in example()[0].golden], np.float32)
SCORES = [row.score for row in example()[0].golden]


@pytest.fixture(scope="module")
def server(redis_server: Redis, tmp_path_factory: pytest.TempPathFactory) -> Generator[Running]:
    store = ModelStore(redis_server.url, namespace="oip")
    store.publish(*promoted("3"), 1)
    data = tmp_path_factory.mktemp("data")
    given = settings(redis_server.url, data, model_bytes=1_000_000, max_rows=10)
    object.__setattr__(given, "namespace", "oip")
    with running(given, project=PROJECT) as one:
        yield one
    store.close()


@pytest.fixture
def client(server: Running) -> Generator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as one:
        yield one


def given(rows: np.ndarray, name: str = "features", datatype: str = "FP32", **more: bool) -> list[triton.InferInput]:
    tensor = triton.InferInput(name, list(rows.shape), datatype)
    tensor.set_data_from_numpy(rows, **more)
    return [tensor]


def test_it_is_live_and_ready(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "3")
    assert not client.is_model_ready(MODEL, "2")
    assert not client.is_model_ready("nobody")


def test_metadata_says_what_the_model_takes(client: triton.InferenceServerClient) -> None:
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    found = client.get_model_metadata(MODEL)
    assert (found["name"], found["versions"], found["platform"]) == (MODEL, ["3"], "onnxruntime_onnx")
    assert found["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 2]}]
    assert found["outputs"] == [{"name": "probability", "datatype": "FP32", "shape": [-1, 1]}]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_the_scores_are_those_of_the_training(
    client: triton.InferenceServerClient, *, binary_in: bool, binary_out: bool
) -> None:
    wanted = [triton.InferRequestedOutput("probability", binary_data=binary_out)]
    found = client.infer(MODEL, given(ROWS, binary_data=binary_in), outputs=wanted, request_id="r1")
    assert found.as_numpy("probability").shape == (4, 1)
    assert found.as_numpy("probability").ravel().tolist() == pytest.approx(SCORES, abs=1e-6)
    head = found.get_response()
    assert (head["model_name"], head["model_version"], head["id"]) == (MODEL, "3", "r1")
    everything = client.infer(MODEL, given(ROWS[:1]), model_version="3")
    assert everything.as_numpy("probability").ravel().tolist() == pytest.approx(SCORES[:1], abs=1e-6)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (given(ROWS.astype(np.float64), datatype="FP64"), "input 'features' is FP32, not 'FP64'"),
        (given(ROWS[:, :1]), r"has the shape \[-1, 2\], not \[4, 1\]"),
        (given(ROWS, name="x"), "takes one input, 'features'"),
        (given(np.zeros((11, 2), np.float32)), "11 rows; at most 10 are allowed"),
    ],
)
def test_a_wrong_tensor_is_refused(
    client: triton.InferenceServerClient, inputs: list[triton.InferInput], message: str
) -> None:
    with pytest.raises(InferenceServerException, match=message):
        client.infer(MODEL, inputs)


def test_unknown_models_versions_and_outputs_are_refused(client: triton.InferenceServerClient) -> None:
    for call, message in (
        (lambda: client.infer("nobody", given(ROWS)), "no version of model 'nobody'"),
        (lambda: client.infer(MODEL, given(ROWS), model_version="2"), "'3' is"),
        (lambda: client.infer(MODEL, given(ROWS), outputs=[triton.InferRequestedOutput("y")]), "it has probability"),
        (lambda: client.get_model_metadata("nobody"), "no version"),
    ):
        with pytest.raises(InferenceServerException, match=message):
            call()


PATH = f"/v2/models/{MODEL}/infer"


def body(**changes: object) -> bytes:
    one = {"name": "features", "shape": [1, 2], "datatype": "FP32", "data": [0.45, 45], **changes}
    return json.dumps({"inputs": [one]}).encode()


@pytest.mark.parametrize(
    ("sent", "status", "message"),
    [
        (b"{", 400, "truncated"),
        (b"{}", 422, "missing required field `inputs`"),
        (body(data=[True, 1]), 422, "values that are not FP32"),
        (body(data=["1", 1]), 422, "values that are not FP32"),
        (body(data=[[1], 2]), 422, "values that are not FP32"),
        (body(data=[1e39, 1]), 422, "too large for FP32"),
        (body(data=[10**400, 1]), 422, "features"),
        (body(data=[1]), 422, "has 1 values, and its shape is"),
        (body(data=None), 422, "has no data"),
        (body(shape=[-1, 2]), 422, "has the shape"),
        (body(shape=[0, 2], data=[]), 422, "has the shape"),
    ],
)
def test_values_are_never_cast(server: Running, sent: bytes, status: int, message: str) -> None:
    reply = server.ask("POST", PATH, sent, {})
    assert (reply.status, message in str(reply.json["error"])) == (status, True), reply.body


def test_nested_data_and_plain_json_will_do(server: Running) -> None:
    reply = server.ask("POST", PATH, body(data=[[0.45, 45]]), {})
    assert reply.json["outputs"][0]["data"] == pytest.approx([SCORES[0]], abs=1e-6)


@pytest.mark.parametrize("length", ["-1", "x", "99999999999"])
def test_a_wrong_length_of_the_header_is_refused(server: Running, length: str) -> None:
    assert server.ask("POST", PATH, body(), {"inference-header-content-length": length}).status == 422


def test_integers_and_doubles_are_models_of_their_own(server: Running, redis_server: Redis) -> None:
    store = ModelStore(redis_server.url, namespace="oip")
    store.publish(*scoring(PROJECT.models[0], "4", linear(2, 1, dtype=TensorProto.DOUBLE)), 2)
    server.service._models.refresh()
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        rows = np.array([[1e15, 1.0]])
        found = client.infer(MODEL, given(rows, name="inputs", datatype="FP64"))
        assert found.as_numpy("score").tolist() == [[2e15 + 1]]
        assert client.get_model_metadata(MODEL)["versions"] == ["4"]
    store.publish(*promoted("3"), 3)
    server.service._models.refresh()
    store.close()
