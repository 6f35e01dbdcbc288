"""Each reason to refuse a version, alone."""

import pickle
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper

import featurestore as fs
from featurestore.models import gate
from featurestore.models.example import MODEL_ID
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
        (replace(GOOD, golden=(replace(GOOD.golden[0], score=GOOD.golden[0].score + 1e-5),)), "golden row 0 scores 0.2"),
        (replace(GOOD, golden=(Golden(inputs=(0.5, "old"), score=0.5),)), "onnx: .*takes 2 inputs, not 1"),
    ],
)  # fmt: skip
def test_what_the_metadata_says_wrong_is_refused(version: ModelVersion, message: str) -> None:
    found = reasons(version)
    assert any(pytest.raises(AssertionError, match=message) is not None and __import__("re").search(message, one) for one in found), found


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
