"""Each reason to refuse a version, alone."""

import pickle
import random
import re
from dataclasses import replace

import pytest
from onnx import TensorProto, helper

import featurestore as fs
from featurestore.models import gate
from featurestore.models.gate import check
from featurestore.models.metadata import ExpectedFeature, Golden, ModelVersion
from tests.featurestore.models.examples import PROJECT, profile, project, promoted, pushed, with_artifacts

GOOD, BYTES = promoted()
FEATURES = GOOD.expected_features


def reasons(version: ModelVersion = GOOD, artifacts: dict[str, bytes] = BYTES, of: fs.Project = PROJECT) -> list[str]:
    return [str(refusal) for refusal in check(version, artifacts, of)]


def test_a_good_version_is_let_through() -> None:
    assert reasons() == []


def renamed(location: str, place: int = 1, **changes: str) -> ModelVersion:
    artifacts = list(GOOD.artifacts)
    artifacts[place] = replace(artifacts[place], azure_location=f"{GOOD.folder}/{location}", **changes)
    return replace(GOOD, artifacts=tuple(artifacts))


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (pushed()[0], "status: version 1 is staging, not production"),
        (renamed("model.onnx"), r"name: credit_risk_v1/1/model.onnx does not end in 'production'"),
        (renamed("model.onnx.productio"), "does not end in 'production'"),
        (replace(GOOD, model_id="other", artifacts=(replace(GOOD.artifacts[1], azure_location="other/1/m.onnx"),)),
         "model: 'other' is not declared in the project; declared: credit_risk_v1"),
        (replace(GOOD, artifacts=GOOD.artifacts[:1]), "artifacts: there are 0 artifacts of type 'model' instead of 1"),
        (renamed("scaler.artifact.production", 0), "key: .*'artifact' cannot be an extension"),
        (renamed("model.production"), "key: .*'' cannot be an extension"),
        (replace(GOOD, artifacts=(*GOOD.artifacts, GOOD.artifacts[0])), "key model:credit_risk_v1:scaler.onnx"),
        (renamed("model.onnx.production", format="exe"), "format: .* is a exe; known are json, onnx, safetensors"),
        (replace(GOOD, expected_features=tuple(reversed(FEATURES))), r"index: .* are \[1, 0\], not 0…n−1"),
        (replace(GOOD, expected_features=FEATURES[:1]), "features: it expects .*; the project declares"),
        (replace(GOOD, expected_features=(FEATURES[0], replace(FEATURES[1], type="float"))),
         "type: feature 'age_years' is int, not float"),
        (replace(GOOD, expected_features=(FEATURES[0], ExpectedFeature(index=1, name="height", type="float"))),
         "feature 'height' is in none of the views"),
        (replace(GOOD, view_versions={"credit_profile": 2}), "versions: it was trained on .* the project pins"),
        (replace(GOOD, view_versions={}), "versions: it was trained on {}; the project pins {'credit_profile': 1}"),
        (replace(GOOD, golden=()), "golden: there are no golden rows"),
        (replace(GOOD, golden=(Golden(inputs=(1.0,), score=0.5),)), "golden: golden row 0 has 1 inputs"),
        (replace(GOOD, golden=(replace(GOOD.golden[0], score=0.25),)), r"row 0 scores 0\.24973\d+ instead of 0\.25"),
        (replace(GOOD, golden=(Golden(inputs=(0.5, "old"), score=0.5),)), "onnx: .*takes 2 inputs, not 1"),
    ],
)  # fmt: skip
def test_what_the_metadata_says_wrong_is_refused(version: ModelVersion, message: str) -> None:
    assert re.search(message, "\n".join(reasons(version)))


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (project(profile(version=2)), "versions: view 'credit_profile' version 1 is not declared"),
        (project(profile(age=float)), "type: feature 'age_years' is float, not int"),
        (project(features=("age_years", "debt_to_income_ratio")), "features: it expects"),
        (project(features=("debt_to_income_ratio", "income")), "features: it expects"),
        (fs.Project((profile(),)), "declared: none"),
    ],
)
def test_a_project_that_has_changed_refuses(of: fs.Project, message: str) -> None:
    assert message in "\n".join(reasons(of=of))


def test_a_feature_that_is_not_online_any_more_refuses() -> None:
    of = project(profile(online=False), features=("debt_to_income_ratio",))
    assert "online: feature 'age_years' is not online; set online=True" in "\n".join(reasons(of=of))


# ---- the artifacts


def onnx(inputs: int = 2, dtype: int = TensorProto.FLOAT, outputs: tuple[int, ...] = (TensorProto.FLOAT,)) -> bytes:
    """A model that gives what it takes."""
    nodes = [helper.make_node("Cast", ["x"], [f"y{n}"], to=to) for n, to in enumerate(outputs)]
    graph = helper.make_graph(
        nodes,
        "same",
        [helper.make_tensor_value_info("x", dtype, ["rows", inputs])],
        [helper.make_tensor_value_info(f"y{n}", to, ["rows", inputs]) for n, to in enumerate(outputs)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def test_bits_that_flipped_are_refused() -> None:
    dice = random.Random(1)
    for _ in range(300):
        flipped = bytearray(BYTES["model"])
        flipped[dice.randrange(len(flipped))] ^= 1 << dice.randrange(8)
        assert "digest: " in reasons(artifacts={**BYTES, "model": bytes(flipped)})[0]


@pytest.mark.parametrize("artifacts", [{}, {"model": BYTES["model"]}, {**BYTES, "model": BYTES["model"][:-1]}])
def test_what_is_missing_or_cut_is_refused(artifacts: dict[str, bytes]) -> None:
    assert reasons(artifacts=artifacts)[0].startswith("digest: ")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (b"not a model", "onnx: .*model.onnx.production cannot be loaded"),
        (BYTES["model"][:150], "onnx: .*cannot be loaded"),
        (onnx(3), "onnx: .*takes 3 inputs, not 2"),
        (onnx(2, TensorProto.STRING), r"onnx: .*takes a tensor\(string\)"),
        (onnx(2, outputs=(TensorProto.INT64,)), r"onnx: .*gives tensor\(int64\), and no tensor of floats"),
        (onnx(2, TensorProto.INT64), "onnx: .*takes whole numbers, and these are not"),
        (onnx(2), "golden: golden row 1 scores"),
    ],
)
def test_a_model_of_another_kind_is_refused(model: bytes, message: str) -> None:
    artifacts = {**BYTES, "model": model}
    assert re.search(message, "\n".join(reasons(with_artifacts(GOOD, artifacts), artifacts)))


def test_a_model_of_another_width_is_refused() -> None:
    artifacts = {**BYTES, "scaler": onnx(3)}
    assert reasons(with_artifacts(GOOD, artifacts), artifacts) == ["inputs: it takes 3 inputs, and 2 are expected"]


def test_inputs_in_another_order_are_refused() -> None:
    swapped = replace(GOOD, golden=tuple(replace(row, inputs=tuple(reversed(row.inputs))) for row in GOOD.golden))
    assert "golden: golden row" in reasons(swapped)[0]


def test_a_pickle_is_refused_unless_its_model_allows_it() -> None:
    artifacts = {"model": pickle.dumps({"a": 1})}
    version = with_artifacts(replace(GOOD, artifacts=(replace(GOOD.artifacts[1], format="pickle"),)), artifacts)
    assert "does not allow_pickle" in reasons(version, artifacts)[0]
    assert reasons(version, artifacts, project(allow_pickle=True)) == []


def test_an_artifact_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "MAX_ARTIFACT_BYTES", 200)
    assert re.search("size: .* has .* bytes; at most 200 are served", "\n".join(reasons()))


def test_text_is_no_input_of_a_model() -> None:
    view = fs.FeatureView("city", profile().entity, profile().source, [fs.Feature("city", str, "'x'", online=True)])
    version = replace(
        GOOD, expected_features=(ExpectedFeature(index=0, name="city", type="str"),), view_versions={"city": 1}
    )
    of = fs.Project((view,), (fs.Model(GOOD.model_id, [view["city"]]),))
    assert reasons(version, of=of) == ["inputs: feature 'city' is text, and the model takes numbers"]
