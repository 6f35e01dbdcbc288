"""From what is to be served to what is served: fetch, check, publish."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from featurestore.definitions.project import Project
from featurestore.errors import SettingsError, TerminalError
from featurestore.models.gate import MAX_ARTIFACT_BYTES, Refusal, check
from featurestore.models.history import Scan
from featurestore.models.log import Production
from featurestore.models.metadata import Artifact, ModelVersion


class Downloads(Protocol):
    """What is needed of ModelBlobs."""

    def download(self, artifact: Artifact) -> bytes: ...


class Publishes(Protocol):
    """What is needed of ModelStore."""

    def publish(self, version: ModelVersion, artifacts: Mapping[str, bytes], generation: int) -> bool: ...

    def withdraw(self, model_id: str, generation: int) -> bool: ...

    def is_whole(self, model_id: str, generation: int) -> bool: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a model. With refusals nothing has changed: what was served before is served still."""

    model_id: str
    version: str  # empty: withdrawn
    generation: int
    published: bool = False  # False also if exactly this, or something newer, is published already
    refusals: tuple[Refusal, ...] = ()


def bring(wanted: Production, scan: Scan, blobs: Downloads, store: Publishes, project: Project) -> Outcome:
    """Publish the version that is to be served, or withdraw the model; doing it again changes nothing.

    Raises:
        TransientError: the container or Redis does not answer; try again.
        SettingsError: one of them refuses the credentials.
    """
    outcome = Outcome(wanted.model_id, wanted.version, wanted.generation)
    if not wanted.version:
        return replace(outcome, published=store.withdraw(wanted.model_id, wanted.generation))
    if store.is_whole(wanted.model_id, wanted.generation):
        return outcome
    version = promoted(wanted, scan)
    if version is None:
        reason = f"the metadata file of version {wanted.version} (ETag {wanted.etag}) is not in the container any more"
        return replace(outcome, refusals=(Refusal("metadata", reason),))
    artifacts, missing = _fetch(version, blobs)
    refusals = missing or check(version, artifacts, project)
    if refusals:
        return replace(outcome, refusals=refusals)
    return replace(outcome, published=store.publish(version, artifacts, wanted.generation))


def promoted(wanted: Production, scan: Scan) -> ModelVersion | None:
    """What the container says of the version that is to be served."""
    for one in scan.versions:
        metadata = one.metadata
        if (metadata.model_id, metadata.version, one.etag) == (wanted.model_id, wanted.version, wanted.etag):
            return metadata
    return None


def _fetch(version: ModelVersion, blobs: Downloads) -> tuple[dict[str, bytes], tuple[Refusal, ...]]:
    """The artifacts by type, and why some could not be had. One that is too large is left for the gate to refuse."""
    found: dict[str, bytes] = {}
    refusals: list[Refusal] = []
    for artifact in version.artifacts:
        if artifact.size_bytes > MAX_ARTIFACT_BYTES:
            continue
        try:
            found[artifact.artifact_type] = blobs.download(artifact)
        except SettingsError:  # the container refuses us; no artifact's fault
            raise
        except TerminalError as error:
            refusals.append(Refusal("artifact", str(error)))
    return found, tuple(refusals)
