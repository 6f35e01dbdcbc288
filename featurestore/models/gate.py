"""May a version be served? Metadata, the artifacts' bytes and the declared project → reasons why not."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from featurestore.definitions.feature import Feature
from featurestore.definitions.model import Model
from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView, View
from featurestore.errors import DefinitionError
from featurestore.models.metadata import PRODUCTION, Artifact, ExpectedFeature, ModelVersion
from featurestore.models.trial import try_out

MAX_ARTIFACT_BYTES = 2**30
# What a score is made of without running a file's own code. A pickle runs code when it is loaded.
DATA_FORMATS = frozenset({"onnx", "safetensors", "json"})
PICKLES = frozenset({"pickle", "joblib", "cloudpickle", "dill", "skops"})

_EXTENSION = re.compile(r"[a-z0-9_]{1,16}")
_RESERVED_KEYS = frozenset({"artifact", "chunk"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """A reason why a version is not served; `what` is stable, `reason` is for people."""

    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


def check(version: ModelVersion, artifacts: Mapping[str, bytes], project: Project) -> tuple[Refusal, ...]:
    """Every reason found; none means that it may be served. `artifacts` are bytes by artifact type."""
    model = next((one for one in project.models if one.model_id == version.model_id), None)
    if model is None:
        declared = ", ".join(one.model_id for one in project.models) or "none"
        return (Refusal("model", f"{version.model_id!r} is not declared in the project; declared: {declared}"),)
    refusals = [
        *_status(version),
        *_files(version, artifacts, allow_pickle=model.allow_pickle),
        *_features(version, model, project),
        *_receipt(version),
    ]
    # A file that is not what it should be is not loaded.
    return tuple(refusals or _scores(version, artifacts))


def _status(version: ModelVersion) -> Iterator[Refusal]:
    if version.status != "production":
        yield Refusal("status", f"version {version.version} is {version.status}, not production")
    for artifact in version.artifacts:
        if not artifact.azure_location.endswith(PRODUCTION.removeprefix(".")):
            yield Refusal("name", f"{artifact.azure_location} does not end in 'production'")


def _files(version: ModelVersion, artifacts: Mapping[str, bytes], *, allow_pickle: bool) -> Iterator[Refusal]:
    types = [artifact.artifact_type for artifact in version.artifacts]
    if types.count("model") != 1:
        yield Refusal("artifacts", f"there are {types.count('model')} artifacts of type 'model' instead of 1")
    keys = [artifact.key_suffix for artifact in version.artifacts]
    for key in sorted({key for key in keys if keys.count(key) > 1}):
        yield Refusal("key", f"two artifacts would have the Redis key model:{version.model_id}:{key}")
    for artifact in version.artifacts:
        yield from _file(artifact, artifacts.get(artifact.artifact_type), allow_pickle=allow_pickle)


def _file(artifact: Artifact, data: bytes | None, *, allow_pickle: bool) -> Iterator[Refusal]:
    name = artifact.azure_location
    if not _EXTENSION.fullmatch(artifact.extension) or artifact.extension in _RESERVED_KEYS:
        yield Refusal("key", f"{name}: {artifact.extension!r} cannot be an extension; it becomes part of a Redis key")
    if artifact.format in PICKLES and not allow_pickle:
        yield Refusal("format", f"{name} is a {artifact.format}, which runs code; its model does not allow_pickle")
    elif artifact.format not in DATA_FORMATS | PICKLES:
        yield Refusal("format", f"{name} is a {artifact.format}; known are {', '.join(sorted(DATA_FORMATS))}")
    if artifact.size_bytes > MAX_ARTIFACT_BYTES:
        yield Refusal("size", f"{name} has {artifact.size_bytes} bytes; at most {MAX_ARTIFACT_BYTES} are served")
    if data is None:
        yield Refusal("digest", f"{name} was not found")
    elif (len(data), hashlib.sha256(data).hexdigest()) != (artifact.size_bytes, artifact.sha256):
        yield Refusal("digest", f"{name} is not what its metadata describes: {len(data)} bytes of another digest")


def _features(version: ModelVersion, model: Model, project: Project) -> Iterator[Refusal]:
    found = version.expected_features
    if [one.index for one in found] != list(range(len(found))):
        yield Refusal("index", f"the indexes of the expected features are {[one.index for one in found]}, not 0…n−1")
    declared = [wanted.name for wanted in model.expected_features]
    if [one.name for one in found] != declared:
        yield Refusal("features", f"it expects {[one.name for one in found]}; the project declares {declared}")
    pinned = {wanted.view: wanted.version for wanted in model.expected_features}
    if dict(version.view_versions) != pinned:
        yield Refusal("versions", f"it was trained on {dict(version.view_versions)}; the project pins {pinned}")
    features: dict[str, tuple[View, Feature]] = {}
    for name, number in version.view_versions.items():
        try:
            view = project.view(name, number)
        except DefinitionError as error:
            yield Refusal("versions", str(error))
        else:
            features |= {feature.name: (view, feature) for feature in view.all_features}
    for expected in found:
        yield from _feature(expected, features)


def _feature(expected: ExpectedFeature, features: Mapping[str, tuple[View, Feature]]) -> Iterator[Refusal]:
    if expected.name not in features:
        yield Refusal("features", f"feature {expected.name!r} is in none of the views it was trained on")
        return
    view, feature = features[expected.name]
    if feature.dtype.__name__ != expected.type:
        yield Refusal("type", f"feature {feature.name!r} is {feature.dtype.__name__}, not {expected.type}")
    if isinstance(view, FeatureView) and not feature.online:
        yield Refusal("online", f"feature {feature.name!r} is not online; set online=True in view {view.name!r}")


def _receipt(version: ModelVersion) -> Iterator[Refusal]:
    """Whether the training set, where its receipt is known, had what the model expects."""
    trained_on = version.receipt.get("features")
    if trained_on is None:
        return
    for expected in version.expected_features:
        if expected.name not in trained_on:
            yield Refusal("receipt", f"feature {expected.name!r} is not in the training set of its receipt")
    for view, number in dict(version.receipt.get("versions", {})).items():
        if version.view_versions.get(view, number) != number:
            yield Refusal("receipt", f"the training set has version {number} of view {view!r}, the model pins another")


def _scores(version: ModelVersion, artifacts: Mapping[str, bytes]) -> Iterator[Refusal]:
    """Whether an ONNX model takes these features and scores as it did when it was trained."""
    if any(artifact.format != "onnx" for artifact in version.artifacts):
        return
    for expected in version.expected_features:
        if expected.type == "str":
            yield Refusal("inputs", f"feature {expected.name!r} is text, and the model takes numbers")
            return
    for what, reason in try_out(version, artifacts):
        yield Refusal(what, reason)
