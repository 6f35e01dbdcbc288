"""The lake's manifest: which files there are, for readers without the service and for a rebuild."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from featurestore.database.client import Database
from featurestore.database.jobs import FeatureColumn, LakeFile, ViewTable
from featurestore.errors import CorruptFileError, FormatError, TerminalError
from featurestore.landing.disk import DiskStorage

FORMAT = 1
MANIFEST = "manifest.json"

_VERSIONS = """
    SELECT target, "view", version, digest, source, entity, columns, features, registered_at, active
    FROM view_versions WHERE dropped_at IS NULL ORDER BY target
"""
_FILES = """
    SELECT name, target, kind, bucket, buckets, row_count, size_bytes, digest FROM lake_files
    ORDER BY landing_day, name
"""


class LakeLog(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a view, as the database knew it, and its files, oldest landing days first."""

    table: ViewTable
    registered_at: datetime
    active: bool
    files: tuple[LakeFile, ...]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What the lake of one database held when it was published."""

    format: int = FORMAT
    epoch: str  # which database
    published_at: datetime
    logs: tuple[LakeLog, ...]


def read_manifest(root: Path) -> Manifest | None:
    """None where nothing was ever published.

    Raises:
        CorruptFileError: it is damaged.
        FormatError: a newer version wrote it.
    """
    path = root / MANIFEST
    try:
        data = path.read_bytes()
        found = msgspec.json.decode(data, type=_Format).format
        if found > FORMAT:
            raise FormatError(f"{path} has format {found}, this version reads up to {FORMAT}; upgrade it")
        return msgspec.json.decode(data, type=Manifest)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise CorruptFileError(f"{path} is damaged: {error}") from error


def publish(root: Path, database: Database, now: datetime) -> Manifest:
    """Write down what the database lists, in place of what was there; by one process at a time."""
    files: dict[str, list[LakeFile]] = {}
    for row in database.query_arrow(_FILES).to_pylist():
        files.setdefault(row.pop("target"), []).append(LakeFile(**row))
    manifest = Manifest(
        epoch=_epoch(database),
        published_at=now,
        logs=tuple(one.with_files(files.get(one.target, [])) for one in database.query(_VERSIONS, into=_Version)),
    )
    storage = DiskStorage(root)
    with storage.writing(MANIFEST) as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest)))
        storage.replace(file, MANIFEST)
    return manifest


def listed_files(root: Path, database: Database) -> Collection[str]:
    """The files that the lake's own database lists.

    Raises:
        TerminalError: the manifest is of another database, whose files this one does not know.
    """
    manifest = read_manifest(root)
    if manifest is not None and manifest.epoch != _epoch(database):
        raise TerminalError(
            f"{root} is the lake of another database than the one that is served; `featurestore rebuild` makes "
            "one of the lake and the landing zone, `featurestore restore` brings back a backup of both"
        )
    return {one.name for one in database.query("SELECT name FROM lake_files", into=_Name)}


def _epoch(database: Database) -> str:
    [info] = database.query("SELECT epoch FROM store_info", into=_Epoch)
    return info.epoch


class _Format(msgspec.Struct):
    format: int


@dataclass(frozen=True, slots=True)
class _Epoch:
    epoch: str


@dataclass(frozen=True, slots=True)
class _Name:
    name: str


@dataclass(frozen=True, slots=True)
class _Version:
    """A row of view_versions."""

    target: str
    view: str
    version: int
    digest: str
    source: str
    entity: str
    columns: str
    features: str
    registered_at: datetime
    active: bool

    def with_files(self, files: list[LakeFile]) -> LakeLog:
        table = ViewTable(
            target=self.target,
            view=self.view,
            version=self.version,
            entity=self.entity,
            source=self.source,
            digest=self.digest,
            columns=msgspec.json.decode(self.columns, type=tuple[tuple[str, str], ...]),
            features=msgspec.json.decode(self.features, type=tuple[FeatureColumn, ...]),
        )
        return LakeLog(
            table=table, registered_at=self.registered_at.astimezone(UTC), active=self.active, files=tuple(files)
        )
