"""The container of models in Azure Blob Storage.

    <model_id>/<version>/<file>               an artifact, as it was pushed; never changed
    <model_id>/<version>/metadata.json        the version (metadata.py); written last, so it is whole or not there
    <model_id>/<version>/<file>.production    the same bytes, copied when the version is first promoted
    <model_id>/metadata.<number>.json         what was said about its versions since, numbered 000001, 000002, …: the
                                              metadata of one of them with the status production or retired

A number is taken by creating its blob, which only one can do, so the promotions of a model have one order for
everyone; `recorded_at` rises along it, whatever the clocks. Of the versions whose last word is production, the one
promoted last is to be served; so retiring a version gives way to the one before it, and to none if all are retired. An
artifact is served only if its name ends in `production`; that name alone promotes nothing.
"""

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime

from azure.core import MatchConditions

from featurestore.blob_container import BlobContainer, BlobMissingError
from featurestore.errors import StoreUnavailableError, TerminalError
from featurestore.models.history import BlobVersion, Scan, Unusable, next_word, scan_of
from featurestore.models.metadata import PRODUCTION, Artifact, MetadataError, ModelVersion, Status, decode, encode
from featurestore.settings import AzureSettings

MAX_METADATA_BYTES = 4 * 2**20
AT_ONCE = 4  # parts of a large artifact
PROMOTION_TRIES = 10  # of taking a number, when others promote the same model at the same time

_VERSION_FILE = re.compile(r"([^/]+)/([^/]+)/metadata\.json")
_WORD_FILE = re.compile(r"([^/]+)/metadata\.(\d{6})\.json")


class ModelBlobs:
    """Reads and writes the container; nothing is asked before the first call. Thread-safe.

    Every call is tried as often as the settings say. Raises, from every method: StoreUnavailableError (no answer),
    SettingsError (credentials), TerminalError (not there, or not what it should be).
    """

    def __init__(self, azure: AzureSettings, namespace: str = "") -> None:
        """Raises SettingsError as BlobContainer does."""
        self._container = BlobContainer(azure, f"{namespace}-{azure.container}" if namespace else azure.container)
        self._seen: dict[tuple[str, str], ModelVersion | Unusable] = {}  # by blob name and ETag

    @property
    def address(self) -> str:
        """The container's URL, without credentials."""
        return self._container.address

    def close(self) -> None:
        self._container.close()

    # ---- reading

    def versions(self) -> list[BlobVersion]:
        """Every usable metadata file, each model's in the order they count; see `scan` for the others."""
        return list(self.scan().versions)

    def scan(self, model_id: str = "") -> Scan:
        """Every metadata file, or those of one model. Downloads only what is new since the last scan of this object.

        The promotions of a model end at the first number that is missing or unusable: those behind it do not count
        before it does.
        """
        seen = {
            (name, etag): self._seen.get((name, etag)) or self._metadata(name, etag)
            for name, etag in self._listed(model_id)
        }
        self._seen = {**self._seen, **seen} if model_id else seen
        found = [BlobVersion(one, etag, name) for (name, etag), one in seen.items() if isinstance(one, ModelVersion)]
        unusable = [one for one in seen.values() if isinstance(one, Unusable)]
        return scan_of(found, unusable)

    def download(self, artifact: Artifact) -> bytes:
        """The bytes of an artifact, as its metadata describes them.

        Raises:
            TerminalError: it is not there, or its size or digest is another.
        """
        name = artifact.azure_location
        size, etag, _ = self._properties(name)
        if size != artifact.size_bytes:
            raise TerminalError(f"{name} has {size} bytes; its metadata says {artifact.size_bytes}")
        data = self._download(name, etag)
        if (digest := _digest(data)) != artifact.sha256:
            raise TerminalError(f"{name} has the digest {digest}; its metadata says {artifact.sha256}")
        return data

    # ---- writing

    def push(self, version: ModelVersion, artifacts: Mapping[str, bytes]) -> bool:
        """Write a version: its artifacts (by artifact type), then its metadata. Returns False if it is there already.

        Raises:
            TerminalError: the same version is there with other content, or the bytes are not those of the metadata.
        """
        if version.promotion or version.status != "staging":
            raise TerminalError(f"{version.folder}: a version is pushed with status staging, then promoted")
        for artifact in version.artifacts:
            data = artifacts.get(artifact.artifact_type, b"")
            if (_digest(data), len(data)) != (artifact.sha256, artifact.size_bytes):
                raise TerminalError(f"{artifact.azure_location}: the bytes are not those that its metadata describes")
        self._container.create()
        for artifact in version.artifacts:
            self._create(artifact.azure_location, artifacts[artifact.artifact_type])
        return self._create(f"{version.folder}/metadata.json", encode(version))

    def promote(self, model_id: str, version: str, *, actor: str, now: datetime, status: Status = "production") -> bool:
        """Say that a version is in production (or retired). Returns False if that is the last word already.

        Promoting an older version is the way back: nothing is copied again, and the newer one stays as it is.

        Raises:
            TerminalError: there is no such version, an artifact is not what its metadata says, or the model's earlier
                promotions cannot be read.
        """
        for _ in range(PROMOTION_TRIES):
            history = self._history(model_id)
            pushed = next((one for one in history if (one.version, one.promotion) == (version, 0)), None)
            if pushed is None:
                raise TerminalError(f"{model_id}/{version}: there is no such version in {self.address}")
            last = history[-1]
            if last.promotion and (last.version, last.status) == (version, status):
                return False
            if status == "production":
                for artifact in pushed.artifacts:
                    self._copy_to_production(artifact)
            word = next_word(history, pushed, actor=actor, now=now, status=status)
            if self._create_new(f"{model_id}/metadata.{word.promotion:06d}.json", encode(word)):
                return True
        raise StoreUnavailableError("Azure Blob Storage", self.address, f"others promote {model_id} all the time")

    # ---- inside

    def _history(self, model_id: str) -> list[ModelVersion]:
        """What was said about a model, in order."""
        scan = self.scan(model_id)
        for one in scan.unusable:
            if one.location.startswith(f"{model_id}/metadata."):
                raise TerminalError(f"{one.location} cannot be used: {one.reason}")
        return [one.metadata for one in scan.versions]

    def _copy_to_production(self, artifact: Artifact) -> None:
        name = artifact.azure_location + PRODUCTION
        try:
            size, _, digest = self._properties(name)
        except BlobMissingError:
            self._create(name, self.download(artifact))
            return
        if (size, digest) != (artifact.size_bytes, artifact.sha256):
            raise TerminalError(f"{name} is there already with other content than {artifact.azure_location}")

    def _listed(self, model_id: str) -> list[tuple[str, str]]:
        """Names and ETags of the metadata files."""
        try:
            with self._container.explained("the container"):
                blobs = list(self._container.client.list_blobs(name_starts_with=f"{model_id}/" if model_id else None))
        except BlobMissingError:  # a container that is not there yet has no models
            return []
        named = ((str(blob.name), _bare(blob.etag)) for blob in blobs)
        return [(name, etag) for name, etag in named if _VERSION_FILE.fullmatch(name) or _WORD_FILE.fullmatch(name)]

    def _metadata(self, name: str, etag: str) -> ModelVersion | Unusable:
        try:
            version = decode(self._download(name, etag, limit=MAX_METADATA_BYTES), name)
        except TerminalError as error:
            return Unusable(name, str(error))
        said = f"{version.folder}/metadata.json"
        if version.promotion:
            said = f"{version.model_id}/metadata.{version.promotion:06d}.json"
        return version if said == name else Unusable(name, f"by its content its name would be {said}")

    def _properties(self, name: str) -> tuple[int, str, str]:
        """Size, ETag, and the digest that it was written with."""
        with self._container.explained(name):
            found = self._container.client.get_blob_client(name).get_blob_properties()
        return found.size, _bare(found.etag), (found.metadata or {}).get("sha256", "")

    def _download(self, name: str, etag: str, *, limit: int | None = None) -> bytes:
        """The bytes of a blob, if it still has this ETag."""
        with self._container.explained(name):
            blob = self._container.client.get_blob_client(name)
            stream = blob.download_blob(
                etag=etag, match_condition=MatchConditions.IfNotModified, max_concurrency=AT_ONCE
            )
            if limit is not None and stream.size > limit:
                raise MetadataError(f"{name}: {stream.size} bytes are too much for a metadata file")
            return stream.readall()

    def _create(self, name: str, data: bytes) -> bool:
        """Write a blob that is never changed. Returns False if it is there with the same bytes."""
        if self._create_new(name, data):
            return True
        if self._download(name, self._properties(name)[1]) != data:
            raise TerminalError(f"{name} is there already with other content; give the model another version")
        return False

    def _create_new(self, name: str, data: bytes) -> bool:
        """Write a blob unless the name is taken."""
        return self._container.create_blob(name, data, {"sha256": _digest(data)})


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _bare(etag: str | None) -> str:
    return (etag or "").strip('"')
