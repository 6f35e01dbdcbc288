"""The example model of a new platform: `credit_risk_v1`, a scaler and a logistic regression.

Nothing in it is random or read from a clock, so it has the same bytes everywhere; the golden scores are computed here,
without the program that scores later.
"""

import hashlib
import math
from collections.abc import Sequence
from datetime import UTC, datetime

from onnx import ModelProto, NodeProto, TensorProto, checker, helper

from featurestore.models.blobs import ModelBlobs
from featurestore.models.metadata import Artifact, ExpectedFeature, Golden, ModelVersion
from featurestore.settings import Settings

MODEL_ID, VERSION = "credit_risk_v1", "1"
TRAINED = datetime(2026, 1, 15, 12, tzinfo=UTC)

# Of debt_to_income_ratio and age_years, in index order.
MEAN, SCALE = (0.45, 45.0), (0.25, 15.0)
COEFFICIENTS, INTERCEPT = (1.4, -0.5), -1.1

_OPSET, _IR_VERSION = 17, 9  # old enough for every onnxruntime of the last years


def push_example(settings: Settings) -> bool:
    """Put the example model into the container, in production. Returns False if it was ever promoted there.

    Raises as ModelBlobs does.
    """
    blobs = ModelBlobs(settings.azure, settings.namespace)
    try:
        if any(one.metadata.model_id == MODEL_ID and one.metadata.promotion for one in blobs.versions()):
            return False
        blobs.push(*example())
        return blobs.promote(MODEL_ID, VERSION, actor="featurestore", now=datetime.now(UTC))
    finally:
        blobs.close()


def example() -> tuple[ModelVersion, dict[str, bytes]]:
    """The version and its artifacts, by artifact type."""
    artifacts = {"scaler": _bytes(_scaler()), "model": _bytes(_regression())}
    version = ModelVersion(
        model_id=MODEL_ID,
        version=VERSION,
        status="staging",
        trained_date=TRAINED,
        recorded_at=TRAINED,
        expected_features=(
            ExpectedFeature(index=0, name="debt_to_income_ratio", type="float"),
            ExpectedFeature(index=1, name="age_years", type="int"),
        ),
        view_versions={"credit_profile": 1},
        artifacts=tuple(
            Artifact(
                artifact_type=artifact_type,
                azure_location=f"{MODEL_ID}/{VERSION}/{artifact_type}.onnx",
                sha256=hashlib.sha256(data).hexdigest(),
                size_bytes=len(data),
                format="onnx",
            )
            for artifact_type, data in artifacts.items()
        ),
        golden=tuple(
            Golden(inputs=inputs, score=_score(*inputs)) for inputs in ((0.45, 45), (0.1, 70), (0.9, 22), (2.5, 18))
        ),
        receipt={"note": "made by hand: the coefficients were chosen, no training set was read"},
        actor="featurestore",
    )
    return version, artifacts


def _score(debt_to_income_ratio: float, age_years: int) -> float:
    """The probability of a default."""
    inputs = zip((debt_to_income_ratio, age_years), MEAN, SCALE, COEFFICIENTS, strict=True)
    logit = INTERCEPT + sum(factor * (value - mean) / scale for value, mean, scale, factor in inputs)
    return 1 / (1 + math.exp(-logit))


def _scaler() -> ModelProto:
    nodes = [
        helper.make_node("Sub", ["features", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["scaled"]),
    ]
    constants = [
        helper.make_tensor("mean", TensorProto.FLOAT, [2], MEAN),
        helper.make_tensor("scale", TensorProto.FLOAT, [2], SCALE),
    ]
    return _model("scaler", nodes, constants, ("features", 2), ("scaled", 2))


def _regression() -> ModelProto:
    nodes = [
        helper.make_node("MatMul", ["scaled", "coefficients"], ["product"]),
        helper.make_node("Add", ["product", "intercept"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["probability"]),
    ]
    constants = [
        helper.make_tensor("coefficients", TensorProto.FLOAT, [2, 1], COEFFICIENTS),
        helper.make_tensor("intercept", TensorProto.FLOAT, [1], [INTERCEPT]),
    ]
    return _model("regression", nodes, constants, ("scaled", 2), ("probability", 1))


def _model(
    name: str,
    nodes: Sequence[NodeProto],
    constants: Sequence[TensorProto],
    given: tuple[str, int],
    found: tuple[str, int],
) -> ModelProto:
    """A graph from one matrix of float32 to another; any number of rows."""
    graph = helper.make_graph(
        list(nodes),
        name,
        [helper.make_tensor_value_info(given[0], TensorProto.FLOAT, ["rows", given[1]])],
        [helper.make_tensor_value_info(found[0], TensorProto.FLOAT, ["rows", found[1]])],
        initializer=list(constants),
    )
    opset = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION, producer_name="featurestore")
    checker.check_model(model)
    return model


def _bytes(model: ModelProto) -> bytes:
    return model.SerializeToString(deterministic=True)
