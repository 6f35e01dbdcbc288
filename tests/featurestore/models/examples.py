"""A project with a model, and versions of it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import featurestore as fs
from featurestore.models.example import MODEL_ID, example
from featurestore.models.history import next_word
from featurestore.models.metadata import Artifact, ModelVersion

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
