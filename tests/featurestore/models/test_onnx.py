"""Scoring."""

import math

import numpy as np
import pytest
from onnx import TensorProto, helper

from featurestore.models.example import example
from featurestore.models.onnx import ModelError, OnnxModel, load


def test_the_example_scores_as_computed_by_hand() -> None:
    version, artifacts = example()
    model = load(version, artifacts)
    scores = model.score([row.inputs for row in version.golden])
    assert scores == pytest.approx([row.score for row in version.golden], abs=1e-6)
    assert model.width == 2


def test_rows_are_scored_alone_as_together() -> None:
    model = load(*example())
    vectors = [[n / 7, 18 + n] for n in range(50)]
    assert model.score(vectors) == [model.score([vector])[0] for vector in vectors]


def classifier(dtype: int = TensorProto.FLOAT) -> bytes:
    """A label and two probabilities per row, as converters write it."""
    graph = helper.make_graph(
        [
            helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
            helper.make_node("Softmax", ["x"], ["probabilities"], axis=1),
        ],
        "classifier",
        [helper.make_tensor_value_info("x", dtype, ["rows", 2])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["rows"]),
            helper.make_tensor_value_info("probabilities", dtype, ["rows", 2]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def test_a_classifier_gives_the_probability_of_the_last_class() -> None:
    [score] = OnnxModel([("classifier", classifier())]).score([[0.0, 1.0]])
    assert score == pytest.approx(math.e / (1 + math.e))


def test_double_precision_is_kept() -> None:
    [score] = OnnxModel([("classifier", classifier(TensorProto.DOUBLE))]).score([[0.0, 1.0]])
    assert score == pytest.approx(math.e / (1 + math.e), rel=1e-14)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[1.0]], "takes 2 inputs, not 1"),
        ([[1.0, 2.0], [1.0]], r"vector 1, \[1.0\], is not a row of 2 numbers"),
        ([[1.0, None]], "is not a row of 2 numbers"),
        ([[1.0, "2"]], "is not a row of 2 numbers"),
        ([[1.0, 1e300]], "too large"),
        ([[1.0, 2**53 + 1]], "no exact float"),
    ],
)
def test_what_is_not_a_row_of_numbers_is_refused(vectors: list[list[float]], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(*example()).score(vectors)


def test_a_missing_value_stays_missing() -> None:
    [score] = load(*example()).score([[float("nan"), 30]])
    assert np.isnan(score)


def test_no_rows_give_no_scores() -> None:
    assert load(*example()).score([]) == []
