"""What is said about a version of a model: the metadata file beside its artifacts, and its rows in `model_metadata`.

A version *is* its metadata file: it is written last and names the artifacts by digest. What is said later about the
version (promoted, rolled back to, retired) is a further file with the same content, another status and the number of
the promotion; files are only added, never changed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Literal

import msgspec
import pyarrow as pa

from featurestore.errors import TerminalError

Status = Literal["staging", "production", "retired"]
FeatureType = Literal["int", "float", "bool", "str"]
Scalar = int | float | bool | str

PRODUCTION = ".production"  # the end of a production artifact's blob name

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,126}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class MetadataError(TerminalError):
    """A metadata file cannot be used; the message names the file and the member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedFeature:
    """Input `index` of the model."""

    index: int
    name: str
    type: FeatureType


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """One row of inputs, in index order, and the score that the model gave for it when it was trained."""

    inputs: tuple[Scalar, ...]
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One file of a version. `artifact_type` is "model" for the model itself, else what it is: "scaler"."""

    artifact_type: str
    azure_location: str  # blob name in the container
    sha256: str
    size_bytes: int
    format: str

    @property
    def file_name(self) -> str:
        """Without the folder and without the mark of production."""
        return PurePosixPath(self.azure_location.removesuffix(PRODUCTION)).name

    @property
    def extension(self) -> str:
        return PurePosixPath(self.file_name).suffix.removeprefix(".")

    @property
    def key_suffix(self) -> str:
        """What stands behind `model:<ModelID>:` in Redis."""
        return self.extension if self.artifact_type == "model" else f"{self.artifact_type}.{self.extension}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """A metadata file."""

    model_id: str
    version: str
    status: Status
    trained_date: datetime
    recorded_at: datetime
    expected_features: tuple[ExpectedFeature, ...]
    view_versions: Mapping[str, int]  # the version of each view whose features it was trained on
    artifacts: tuple[Artifact, ...]
    golden: tuple[Golden, ...] = ()
    receipt: Mapping[str, Any] = field(default_factory=dict[str, Any])  # of the training set
    actor: str = ""  # who said so, as claimed
    promotion: int = 0  # 0: the version as it was pushed; n: the n-th thing said about the model since

    def __post_init__(self) -> None:
        _check(_NAME.fullmatch(self.model_id), f"model_id {self.model_id!r} is not lower_snake_case")
        _check(_FILE.fullmatch(self.version), f"version {self.version!r} cannot be a folder's name")
        for time in (self.trained_date, self.recorded_at):
            _check(time.tzinfo is not None, f"time {time.isoformat()} has no time zone")
        for artifact in self.artifacts:
            folder, _, file = artifact.azure_location.rpartition("/")
            _check(
                folder == self.folder and _FILE.fullmatch(file),
                f"artifact {artifact.azure_location!r} does not lie in {self.folder}/",
            )
            _check(_NAME.fullmatch(artifact.artifact_type), f"artifact_type {artifact.artifact_type!r} is not a name")
            _check(_SHA256.fullmatch(artifact.sha256), f"sha256 of {artifact.azure_location!r} is not 64 hex digits")
        _check(bool(self.artifacts), "there are no artifacts")

    @property
    def folder(self) -> str:
        """Where its files lie in the container."""
        return f"{self.model_id}/{self.version}"

    def rows(self, etag: str) -> "list[ModelMetadata]":
        """What the metadata file with this ETag says, one row per artifact."""
        return [
            ModelMetadata(
                model_id=self.model_id,
                artifact_type=artifact.artifact_type,
                version=self.version,
                trained_date=self.trained_date,
                status=self.status,
                azure_location=artifact.azure_location,
                expected_features=self.expected_features,
                view_versions=self.view_versions,
                sha256=artifact.sha256,
                size_bytes=artifact.size_bytes,
                format=artifact.format,
                etag=etag,
                actor=self.actor,
                receipt=self.receipt,
                recorded_at=self.recorded_at,
            )
            for artifact in self.artifacts
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMetadata:
    """A row of `model_metadata`: what a metadata file says about one artifact."""

    model_id: str
    artifact_type: str
    version: str
    trained_date: datetime
    status: Status
    azure_location: str
    expected_features: tuple[ExpectedFeature, ...]
    view_versions: Mapping[str, int]
    sha256: str
    size_bytes: int
    format: str
    etag: str
    actor: str
    receipt: Mapping[str, Any]
    recorded_at: datetime


def decode(data: bytes, where: str) -> ModelVersion:
    """Read a metadata file.

    Raises:
        MetadataError: it is not JSON, a member is missing or of another type, or a value cannot be.
    """
    try:
        return msgspec.json.decode(data, type=ModelVersion)
    except (msgspec.DecodeError, UnicodeDecodeError, MetadataError) as error:
        raise MetadataError(f"{where}: {error}") from error


def encode(version: ModelVersion) -> bytes:
    """The metadata file; the same value gives the same bytes."""
    return msgspec.json.format(msgspec.json.encode(version, order="deterministic"), indent=2) + b"\n"


_TEXT = pa.string()
_SCHEMA = pa.schema(
    [
        ("model_id", _TEXT), ("artifact_type", _TEXT), ("version", _TEXT), ("trained_date", _TEXT), ("status", _TEXT),
        ("azure_location", _TEXT), ("expected_features", _TEXT), ("view_versions", _TEXT), ("sha256", _TEXT),
        ("size_bytes", pa.int64()), ("format", _TEXT), ("etag", _TEXT), ("actor", _TEXT), ("receipt", _TEXT),
        ("recorded_at", pa.timestamp("us")),
    ]
)  # fmt: skip


def metadata_table(rows: Sequence[ModelMetadata]) -> pa.Table:
    """Rows of target `model_metadata@v1`; times are UTC, lists and objects JSON."""
    return pa.Table.from_pylist([_flat(row) for row in rows], schema=_SCHEMA)


def _flat(row: ModelMetadata) -> dict[str, object]:
    flat: dict[str, object] = {name: getattr(row, name) for name in _SCHEMA.names}
    for name in ("expected_features", "view_versions", "receipt"):
        flat[name] = msgspec.json.encode(flat[name], order="deterministic").decode()
    flat["trained_date"] = row.trained_date.astimezone(UTC).isoformat()
    flat["recorded_at"] = row.recorded_at.astimezone(UTC).replace(tzinfo=None)
    return flat


def _check(holds: object, reason: str) -> None:
    if not holds:
        raise MetadataError(reason)
