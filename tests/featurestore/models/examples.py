"""A project with a model, and versions of it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from onnx import TensorProto, helper

import featurestore as fs
from featurestore.models.example import MODEL_ID, example
from featurestore.models.history import next_word
from featurestore.models.metadata import Artifact, ExpectedFeature, ModelVersion

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)

USER = fs.Entity("user", key="user_id")
PROFILES = fs.UploadSource(
    "profiles", timestamp="as_of", schema={"user_id": int, "income": float, "debt": float, "age_years": int}
)


def profile(*, age: type[int] | type[float] = int, online: bool = True, version: int = 1) -> fs.FeatureView:
    return fs.FeatureView(
        "credit_profile",
        USER,
        PROFILES,
        [
            fs.Feature("debt_to_income_ratio", float, "debt / income", online=True),
            fs.Feature("age_years", age, online=online),
            fs.Feature("income", float, online=True),
        ],
        version=version,
    )


def project(
    view: fs.FeatureView | None = None,
    features: Sequence[str] = ("debt_to_income_ratio", "age_years"),
    *,
    allow_pickle: bool = False,
) -> fs.Project:
    view = view or profile()
    return fs.Project((view,), (fs.Model(MODEL_ID, [view[name] for name in features], allow_pickle=allow_pickle),))


PROJECT = project()


def pushed(version: str = "1", **changes: object) -> tuple[ModelVersion, dict[str, bytes]]:
    """The example model under another version."""
    first, artifacts = example()
    moved = tuple(
        replace(one, azure_location=one.azure_location.replace("/1/", f"/{version}/")) for one in first.artifacts
    )
    return replace(first, version=version, artifacts=moved, **changes), artifacts


def promoted(version: str = "1") -> tuple[ModelVersion, dict[str, bytes]]:
    one, artifacts = pushed(version)
    return next_word([one], one, actor="anna", now=NOW, status="production"), artifacts


def with_artifacts(version: ModelVersion, artifacts: Mapping[str, bytes]) -> ModelVersion:
    """The same version with other bytes, described as they are."""
    described = tuple(
        replace(one, sha256=hashlib.sha256(artifacts[one.artifact_type]).hexdigest(),
                size_bytes=len(artifacts[one.artifact_type]))
        for one in version.artifacts
    )  # fmt: skip
    return replace(version, artifacts=described)


def opaque(model_id: str, version: str, data: Mapping[str, bytes], extension: str = "bin") -> ModelVersion:
    """A version of any bytes, for what does not look into them."""
    return ModelVersion(
        model_id=model_id,
        version=version,
        status="production",
        trained_date=NOW,
        recorded_at=NOW,
        expected_features=(),
        view_versions={},
        artifacts=tuple(
            Artifact(
                artifact_type=artifact_type,
                azure_location=f"{model_id}/{version}/{artifact_type}.{extension}.production",
                sha256=hashlib.sha256(content).hexdigest(),
                size_bytes=len(content),
                format="json",
            )
            for artifact_type, content in data.items()
        ),
        promotion=1,
    )


def linear(*weights: float, intercept: float = 0.0, padding: int = 0, dtype: int = TensorProto.FLOAT) -> bytes:
    """An ONNX model that gives the sum of its inputs times their weights; `padding` bytes make it larger."""
    width = len(weights)
    constants = [
        helper.make_tensor("weights", dtype, [width, 1], weights),
        helper.make_tensor("intercept", dtype, [1], [intercept]),
        helper.make_tensor("padding", TensorProto.UINT8, [padding], bytes(padding), raw=True),
    ]
    nodes = [
        helper.make_node("MatMul", ["inputs", "weights"], ["products"]),
        helper.make_node("Add", ["products", "intercept"], ["score"]),
    ]
    given = helper.make_tensor_value_info("inputs", dtype, ["rows", width])
    found = helper.make_tensor_value_info("score", dtype, ["rows", 1])
    graph = helper.make_graph(nodes, "linear", [given], [found], initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


def scoring(model: fs.Model, version: str, data: bytes) -> tuple[ModelVersion, dict[str, bytes]]:
    """A version in production of a declared model, made of one ONNX file."""
    made = replace(
        opaque(model.model_id, version, {"model": data}, "onnx"),
        expected_features=tuple(
            ExpectedFeature(index=index, name=one.name, type=one.feature.dtype.__name__)
            for index, one in enumerate(model.expected_features)
        ),
        view_versions={one.view: one.version for one in model.expected_features},
    )
    return replace(made, artifacts=tuple(replace(one, format="onnx") for one in made.artifacts)), {"model": data}
