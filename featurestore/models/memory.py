"""The container of models and the models in production, in memory: for tests, notebooks and materialize().

The order of promotions and the gate are the product's own; what Azure and Redis add (other writers, chunks, keys that
other services read) is not here.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime

from featurestore.errors import TerminalError
from featurestore.models.history import BlobVersion, Scan, next_word, scan_of
from featurestore.models.metadata import PRODUCTION, Artifact, ModelVersion, Status, encode
from featurestore.models.publish import Manifest, PublishedModel, manifest_of


class MemoryBlobs:
    """As featurestore.models.blobs.ModelBlobs, in this process; gone with the object."""

    def __init__(self) -> None:
        self._said: dict[str, ModelVersion] = {}  # by the name of the metadata file
        self._artifacts: dict[str, bytes] = {}

    def scan(self, model_id: str = "") -> Scan:
        found = [
            BlobVersion(one, hashlib.sha256(encode(one)).hexdigest(), name)
            for name, one in self._said.items()
            if model_id in ("", one.model_id)
        ]
        return scan_of(found, ())

    def download(self, artifact: Artifact) -> bytes:
        """Raises TerminalError if it is not there, or is not what its metadata describes."""
        data = self._artifacts.get(artifact.azure_location)
        if data is None or hashlib.sha256(data).hexdigest() != artifact.sha256:
            raise TerminalError(f"{artifact.azure_location} is not there, or is not what its metadata describes")
        return data

    def push(self, version: ModelVersion, artifacts: Mapping[str, bytes]) -> bool:
        """Keep a version and its artifacts (by artifact type). Returns False if the version is there already."""
        name = f"{version.folder}/metadata.json"
        if name in self._said:
            return False
        self._artifacts |= {one.azure_location: artifacts[one.artifact_type] for one in version.artifacts}
        self._said[name] = version
        return True

    def promote(self, model_id: str, version: str, *, actor: str, now: datetime, status: Status = "production") -> bool:
        """Say that a version is in production (or retired). Returns False if that is the last word already.

        Raises:
            TerminalError: there is no such version.
        """
        history = [one.metadata for one in self.scan(model_id).versions]
        pushed = next((one for one in history if (one.version, one.promotion) == (version, 0)), None)
        if pushed is None:
            raise TerminalError(f"{model_id}/{version}: there is no such version in memory; push it first")
        if history[-1].promotion and (history[-1].version, history[-1].status) == (version, status):
            return False
        for artifact in pushed.artifacts:
            self._artifacts[artifact.azure_location + PRODUCTION] = self._artifacts[artifact.azure_location]
        word = next_word(history, pushed, actor=actor, now=now, status=status)
        self._said[f"{model_id}/metadata.{word.promotion:06d}.json"] = word
        return True

    def close(self) -> None:
        pass


class MemoryModelStore:
    """As featurestore.models.publish.ModelStore, in this process; gone with the object."""

    def __init__(self) -> None:
        self._published: dict[str, PublishedModel] = {}

    def publish(self, version: ModelVersion, artifacts: Mapping[str, bytes], generation: int) -> bool:
        """Serve a version from now on. Returns False if a newer word was published."""
        return self._flip(PublishedModel(manifest_of(version, generation), dict(artifacts)))

    def withdraw(self, model_id: str, generation: int) -> bool:
        """Serve no version of a model any more. Returns False if a newer word was published."""
        return self._flip(PublishedModel(Manifest(model_id=model_id, generation=generation), {}))

    def manifest(self, model_id: str) -> Manifest | None:
        """What is published of a model; None if nothing ever was."""
        found = self._published.get(model_id)
        return found.manifest if found else None

    def model_ids(self) -> frozenset[str]:
        """The models that are published."""
        return frozenset(model_id for model_id, one in self._published.items() if one.manifest.version)

    def read_model(self, model_id: str) -> PublishedModel | None:
        """A model with all its artifacts; None if none is published."""
        return self._published[model_id] if model_id in self.model_ids() else None

    def is_whole(self, model_id: str, generation: int) -> bool:
        """Whether this generation of a model, or a newer one, is published."""
        found = self.read_model(model_id)
        return found is not None and found.manifest.generation >= generation

    def close(self) -> None:
        pass

    def _flip(self, new: PublishedModel) -> bool:
        before = self.manifest(new.manifest.model_id)
        if before is not None and before.generation > new.manifest.generation:
            return False
        self._published[new.manifest.model_id] = new
        return True
