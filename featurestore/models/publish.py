"""Models in production, in Redis: whole or not at all.

[<namespace>:]model:<ModelID>:artifact    the manifest, JSON: which version, its artifacts by digest
[<namespace>:]model:<ModelID>:<Extension> the model's bytes; other artifacts <artifact_type>.<extension>; not there if
                                          the artifact is larger than PLAIN_BYTES
[<namespace>:]model:<ModelID>:chunk:<sha256>:<chunks>:<n>   piece n of a larger artifact; never changed
[<namespace>:]prod_models                 SET of the model ids that are published

The manifest is the only switch. It changes together with the plain keys and `prod_models`, in one script
(publish.lua), and only from the manifest that the publisher has seen; so neither a slower publisher nor a crash leaves
a mix. Chunks are written first and expire unless a manifest names them; those of the version before stay for a grace
period, for readers that have its manifest in hand. What is withdrawn leaves a manifest without a version, so that a
publisher that is late cannot bring it back.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import msgspec

from featurestore.errors import TerminalError, TransientError
from featurestore.models.metadata import Artifact, ExpectedFeature, Golden, ModelVersion
from featurestore.models.onnx import OnnxModel, in_order
from featurestore.online.connection import RedisServer, Wire, script

PLAIN_BYTES = 8 * 2**20
CHUNK_BYTES = 2**20
GRACE_S = 3_600
TRIES = 20  # of a flip, or of a read, while others flip

_PACKAGE = "featurestore.models"
_TOGETHER = 8  # chunks per round trip, so that neither side holds much more than these


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedArtifact:
    """An artifact in Redis: its plain key's suffix, or its chunks."""

    artifact_type: str
    key: str  # what stands behind model:<ModelID>:
    format: str
    sha256: str
    size_bytes: int
    chunks: int = 0  # 0: whole under its plain key

    def keys(self, root: str) -> list[str]:
        """Where its bytes lie, in order."""
        if not self.chunks:
            return [f"{root}{self.key}"]
        return [f"{root}chunk:{self.sha256}:{self.chunks}:{number}" for number in range(self.chunks)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is published of a model. Without a version it was withdrawn."""

    model_id: str
    generation: int  # commit_seq of the last word about the model
    version: str = ""
    expected_features: tuple[ExpectedFeature, ...] = ()
    view_versions: Mapping[str, int] = field(default_factory=dict[str, int])
    artifacts: tuple[PublishedArtifact, ...] = ()
    golden: tuple[Golden, ...] = ()

    def keys(self, root: str, *, chunked: bool) -> list[str]:
        """The keys of its artifacts: the chunks, or the plain ones."""
        return [key for one in self.artifacts if bool(one.chunks) is chunked for key in one.keys(root)]


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """A model as it is published, whole and checked."""

    manifest: Manifest
    artifacts: Mapping[str, bytes]  # by artifact type

    def load(self) -> OnnxModel:
        """Make it ready to score. Raises ModelError."""
        names = [(one.artifact_type, f"{self.manifest.model_id} {one.key}") for one in self.manifest.artifacts]
        return OnnxModel([(name, self.artifacts[artifact_type]) for artifact_type, name in in_order(names)])


class ModelStore:
    """Publishes and reads models; thread-safe. Raises, from every method, as RedisServer.wire does."""

    def __init__(self, url: str, *, namespace: str = "", timeout_s: float = 5.0) -> None:
        self._server = RedisServer(url, timeout_s=timeout_s)
        self._prefix = f"{namespace}:" if namespace else ""

    def publish(self, version: ModelVersion, artifacts: Mapping[str, bytes], generation: int) -> bool:
        """Serve a version (that the gate let through) from now on. Returns False if a newer word was published.

        Doing it again with the same generation repairs what was lost.
        """
        manifest = manifest_of(version, generation)
        plain = [artifacts[one.artifact_type] for one in manifest.artifacts if not one.chunks]
        pieces = [piece for one in manifest.artifacts if one.chunks for piece in _pieces(artifacts[one.artifact_type])]
        return self._flip(manifest, plain, pieces)

    def withdraw(self, model_id: str, generation: int) -> bool:
        """Serve no version of a model any more. Returns False if a newer word was published."""
        return self._flip(Manifest(model_id=model_id, generation=generation), (), ())

    def manifest(self, model_id: str) -> Manifest | None:
        """What is published of a model; None if nothing ever was."""
        with self._server.wire() as wire:
            return _manifest(wire.call("GET", self._manifest_key(model_id)))

    def model_ids(self) -> frozenset[str]:
        """The models that are published: `prod_models`."""
        with self._server.wire() as wire:
            members = cast("Sequence[bytes]", wire.call("SMEMBERS", f"{self._prefix}prod_models"))
        return frozenset(member.decode() for member in members)

    def read_model(self, model_id: str) -> PublishedModel | None:
        """A model with all its artifacts, of one version and with the right digests; None if none is published.

        Raises:
            TransientError: what the manifest names is not there; publishing the model again repairs it.
        """
        seen: Manifest | None = None
        with self._server.wire() as wire:
            for _ in range(TRIES):
                manifest = _manifest(wire.call("GET", self._manifest_key(model_id)))
                if manifest is None or not manifest.version:
                    return None
                if manifest == seen:  # not changed by others meanwhile, so it is not whole
                    break
                artifacts = {one.artifact_type: self._read(wire, model_id, one) for one in manifest.artifacts}
                if all(_digest(artifacts[one.artifact_type]) == one.sha256 for one in manifest.artifacts):
                    return PublishedModel(manifest, artifacts)
                seen = manifest
        raise TransientError(
            f"model {model_id!r} in Redis at {self._server.address} is not what its manifest names; "
            "materialize models/production to publish it again"
        )

    def is_whole(self, model_id: str, generation: int) -> bool:
        """Whether this generation of a model, or a newer one, is published and can be read."""
        manifest = self.manifest(model_id)
        if manifest is None or manifest.generation < generation:
            return False
        try:
            return self.read_model(model_id) is not None and model_id in self.model_ids()
        except TransientError:
            return False

    def close(self) -> None:
        self._server.close()

    def _flip(self, manifest: Manifest, plain: Sequence[bytes], pieces: Sequence[bytes]) -> bool:
        """Put `manifest` in the place of whatever older one is there."""
        root, new = self._root(manifest.model_id), msgspec.json.encode(manifest, order="deterministic")
        writes, chunks = manifest.keys(root, chunked=False), manifest.keys(root, chunked=True)
        with self._server.wire() as wire:
            _write_chunks(wire, chunks, pieces)
            for _ in range(TRIES):
                seen = cast("bytes | None", wire.call("GET", self._manifest_key(manifest.model_id)))
                before = _manifest(seen) or Manifest(model_id=manifest.model_id, generation=0)
                if before.generation > manifest.generation:
                    return False
                deletes = sorted({*before.keys(root, chunked=False)} - {*writes})
                old_chunks = sorted({*before.keys(root, chunked=True)} - {*chunks})
                keys = [self._manifest_key(manifest.model_id), f"{self._prefix}prod_models"]
                keys += [*writes, *deletes, *chunks, *old_chunks]
                counts = [len(writes), len(deletes), len(chunks), len(old_chunks)]
                head = [seen or b"", new, manifest.model_id, int(bool(manifest.version)), *counts, GRACE_S]
                flipped = wire.run(script(_PACKAGE, "publish.lua"), keys, [*head, *plain])
                if flipped == 1:
                    return True
                if flipped == -1:
                    _write_chunks(wire, chunks, pieces)
        raise TransientError(f"others publish {manifest.model_id!r} all the time; try again")

    def _read(self, wire: Wire, model_id: str, artifact: PublishedArtifact) -> bytes:
        """The bytes under the keys of an artifact; what is missing is left out, and its digest is another then."""
        keys, found = artifact.keys(self._root(model_id)), list[bytes]()
        for start in range(0, len(keys), _TOGETHER):
            pieces = cast("list[bytes | None]", wire.call("MGET", *keys[start : start + _TOGETHER]))
            found += [piece for piece in pieces if piece is not None]
        return b"".join(found)

    def _root(self, model_id: str) -> str:
        return f"{self._prefix}model:{model_id}:"

    def _manifest_key(self, model_id: str) -> str:
        return f"{self._root(model_id)}artifact"


def manifest_of(version: ModelVersion, generation: int) -> Manifest:
    """What is published of a version."""
    return Manifest(
        model_id=version.model_id,
        generation=generation,
        version=version.version,
        expected_features=version.expected_features,
        view_versions=version.view_versions,
        artifacts=tuple(_published(artifact) for artifact in version.artifacts),
        golden=version.golden,
    )


def _published(artifact: Artifact) -> PublishedArtifact:
    chunks = -(-artifact.size_bytes // CHUNK_BYTES) if artifact.size_bytes > PLAIN_BYTES else 0
    return PublishedArtifact(
        artifact_type=artifact.artifact_type,
        key=artifact.key_suffix,
        format=artifact.format,
        sha256=artifact.sha256,
        size_bytes=artifact.size_bytes,
        chunks=chunks,
    )


def _pieces(data: bytes) -> list[bytes]:
    return [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]


def _write_chunks(wire: Wire, keys: Sequence[str], pieces: Sequence[bytes]) -> None:
    """Write chunks that expire unless a manifest names them soon; a chunk that is there keeps its time."""
    for start in range(0, len(keys), _TOGETHER):
        some = keys[start : start + _TOGETHER]
        there = wire.pipeline([("EXISTS", key) for key in some])
        wire.pipeline(
            [
                ("SET", key, piece, "XX", "KEEPTTL") if is_there else ("SET", key, piece, "NX", "EX", GRACE_S)
                for key, piece, is_there in zip(some, pieces[start : start + _TOGETHER], there, strict=True)
            ]
        )


def _manifest(data: object) -> Manifest | None:
    if not isinstance(data, bytes):
        return None
    try:
        return msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise TerminalError(f"a manifest of a model in Redis cannot be read: {error}") from error


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
