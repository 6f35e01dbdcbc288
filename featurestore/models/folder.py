"""A folder on disk → a version to push: `metadata.json`, and every other file an artifact.

    metadata.json   {"version": "1", "golden": [{"inputs": [0.25, 30], "score": 0.12}, …]}
    model.onnx      the model itself
    scaler.onnx     applied before it; its artifact type is its name

`metadata.json` may also say `model_id` (else the folder's name), `trained_date` (else now), and `artifacts`: the files
in the order they are applied, where that is not the order of their names. What the model expects is not written there:
it is what the project declares.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from featurestore.definitions.model import Model
from featurestore.definitions.project import Project
from featurestore.errors import TerminalError
from featurestore.models.metadata import Artifact, ExpectedFeature, FeatureType, Golden, MetadataError, ModelVersion

METADATA = "metadata.json"
_FORMATS = {"pkl": "pickle"}  # by extension, where it is not the extension itself


class _Described(msgspec.Struct, forbid_unknown_fields=True):
    """The folder's metadata file."""

    version: str
    model_id: str = ""
    trained_date: datetime | None = None
    artifacts: list[str] = []
    golden: list[Golden] = []


def read_folder(
    folder: Path, project: Project, *, receipt: Mapping[str, Any], actor: str, now: datetime
) -> tuple[ModelVersion, dict[str, bytes]]:
    """The version and its artifacts by artifact type; nothing is checked that the gate checks.

    Raises:
        TerminalError: the folder or its metadata file is not as above, or the project declares no such model.
    """
    described = _described(folder / METADATA)
    model = _declared(described.model_id or folder.resolve().name, project)
    files = {path.stem: path for path in _artifacts(folder, described.artifacts)}
    if "model" not in files:
        raise TerminalError(f"{folder}: no file is called model.onnx (or model.…), so none is the model itself")
    try:
        artifacts = {artifact_type: path.read_bytes() for artifact_type, path in files.items()}
    except OSError as error:
        raise TerminalError(f"{error.filename}: {error.strerror}") from error
    version = ModelVersion(
        model_id=model.model_id,
        version=described.version,
        status="staging",
        trained_date=described.trained_date or now,
        recorded_at=now,
        expected_features=tuple(
            ExpectedFeature(index=index, name=one.name, type=_type_name(one.feature.dtype))
            for index, one in enumerate(model.expected_features)
        ),
        view_versions={one.view: one.version for one in model.expected_features},
        artifacts=tuple(
            _artifact(f"{model.model_id}/{described.version}/{path.name}", artifact_type, artifacts[artifact_type])
            for artifact_type, path in files.items()
        ),
        golden=tuple(described.golden),
        receipt=receipt,
        actor=actor,
    )
    return version, artifacts


def _described(path: Path) -> _Described:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Described)
    except OSError as error:
        raise TerminalError(f'{path}: {error.strerror}; it says at least {{"version": …}}') from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MetadataError(f"{path}: {error}") from error


def _declared(model_id: str, project: Project) -> Model:
    for model in project.models:
        if model.model_id == model_id:
            return model
    declared = ", ".join(one.model_id for one in project.models) or "none"
    raise TerminalError(f"model {model_id!r} is not declared in the project; declared: {declared}")


def _artifacts(folder: Path, named: Sequence[str]) -> list[Path]:
    """Every file but the metadata, in the order they are applied."""
    found = {path.name: path for path in sorted(folder.iterdir()) if path.is_file() and path.name[0] != "."}
    found.pop(METADATA, None)
    if named and sorted(named) != sorted(found):
        raise TerminalError(f"{folder / METADATA}: artifacts are {', '.join(named)}; the folder has {', '.join(found)}")
    stems = [path.stem for path in found.values()]
    for stem in {stem for stem in stems if stems.count(stem) > 1}:
        raise TerminalError(f"{folder}: two files are called {stem}.…; the name is the artifact's type")
    return [found[name] for name in named] or list(found.values())


def _artifact(location: str, artifact_type: str, data: bytes) -> Artifact:
    extension = Path(location).suffix.removeprefix(".")
    return Artifact(
        artifact_type=artifact_type,
        azure_location=location,
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        format=_FORMATS.get(extension, extension),
    )


def _type_name(dtype: type) -> FeatureType:
    return msgspec.convert(dtype.__name__, FeatureType)
