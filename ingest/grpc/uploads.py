"""Uploads: taken up where they were cut, checked, and landed whole."""

import logging
import re
import shutil
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

import google_crc32c
import grpc

from featurestore.definitions.project import Project
from featurestore.definitions.source import UploadSource
from featurestore.errors import NoSpaceError, TerminalError
from featurestore.landing import dead_letters
from featurestore.landing.batch import utc_now
from featurestore.landing.columns import Door
from featurestore.landing.uploads import Manifest, UploadLanding
from featurestore.landing.zone import LandingZone
from featurestore.settings import Settings
from ingest.grpc.formats import read_csv, read_ndjson
from ingest.grpc.leftovers import Leftovers
from ingest.grpc.parquet import read_parquet
from ingest.grpc.pieces import FileRefusedError, Piece
from ingest.grpc.refusals import InvalidFieldError, RefusedError
from ingest.grpc.split import land
from ingest.grpc.spool import Announced, Appender, Format, Spool, SpoolDirectory, remove, safe_id
from ingest.metrics import IngestMetrics

log = logging.getLogger(__name__)

REJECTED_ROWS = 100  # told in a receipt; all of them are dead letters

_READERS: dict[Format, Callable[[Path, Door, Callable[[], datetime]], Iterator[Piece]]] = {
    "parquet": read_parquet,
    "csv": read_csv,
    "ndjson": read_ndjson,
}
_RETRY_S = 1.0


class Chunk(Protocol):
    """A piece of a file as it was sent."""

    @property
    def offset(self) -> int: ...
    @property
    def data(self) -> bytes: ...
    @property
    def crc32c(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Status:
    """How far an upload is; a landed one has a manifest, and the first of its dead rows with their reasons."""

    state: Literal["open", "landed", "cancelled"]
    committed_bytes: int = 0
    manifest: Manifest | None = None
    rejected: tuple[tuple[int, str], ...] = ()


def door_of(project: Project, name: str) -> Door:
    """The declaration of a source that takes uploads.

    Raises:
        DefinitionError: no such source is declared.
        TerminalError: its rows come another way.
    """
    source = project.source(name)
    if not isinstance(source, UploadSource):
        raise TerminalError(f"source {name!r} is a {type(source).__name__}; its rows do not come as uploads")
    return Door.of(source, project)


def check_disk(settings: Settings, size_bytes: int) -> None:
    """Keep the reserve of the disk.

    Raises:
        NoSpaceError: with so much more, too little would be left.
    """
    free_bytes = shutil.disk_usage(settings.data_dir).free
    if free_bytes - size_bytes < settings.ingest.disk_reserve_bytes:
        raise NoSpaceError(f"the disk has {free_bytes >> 20} MiB left: too little for {size_bytes >> 20} MiB more")


def status_of(zone: LandingZone, manifest: Manifest, *, rejected_rows: int = REJECTED_ROWS) -> Status:
    """The status of a concluded upload."""
    rejected: tuple[tuple[int, str], ...] = ()
    if manifest.dead_letters:
        chain = zone.open_upload(manifest.source, manifest.upload_id).chain
        dead = dead_letters.read(zone.storage, f"{chain}/{manifest.dead_letters}")
        rejected = tuple((one.sequence, one.reason) for one in dead[:rejected_rows])
    return Status(manifest.state, manifest=manifest, rejected=rejected)


class Uploads:
    """What the service knows of uploads; all of it is on disk. Thread-safe; one stream at a time sends an upload."""

    def __init__(self, settings: Settings, project: Project, zone: LandingZone, metrics: IngestMetrics) -> None:
        self._settings, self._project, self._zone, self._metrics = settings, project, zone, metrics
        self._spools = SpoolDirectory(settings.data_dir / "uploads")
        self._leftovers = Leftovers(project, zone)
        self._lock = threading.Lock()
        self._busy: set[str] = set()

    def start(self, announced: Announced) -> Status:
        """Begin an upload, or learn how far it is."""
        door_of(self._project, announced.source)
        self._check(announced)
        if (concluded := self._concluded(announced.source, announced.upload_id)) is not None:
            if concluded.manifest is not None and concluded.manifest.sha256 == announced.sha256:
                return concluded
            raise taken(announced.upload_id, concluded.state)
        with self._lock:
            name = self._name(announced.source, announced.upload_id)
            spool = self._spools.get(name)
            if spool is None:
                self._check_room(announced.size_bytes)
                spool = self._spools.create(name, announced)
            if spool.announced != announced:
                raise taken(announced.upload_id, "begun")
            return Status("open", spool.committed_bytes)

    def _check(self, announced: Announced) -> None:
        limit = self._settings.grpc.max_upload_bytes
        if announced.size_bytes < 1:
            raise InvalidFieldError("size_bytes", f"a file has at least one byte, not {announced.size_bytes}")
        if announced.size_bytes > limit:  # final: there is no use in trying again
            raise RefusedError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"a file has at most {limit} bytes, not {announced.size_bytes}; cut it",
            )
        if not re.fullmatch(r"[0-9a-f]{64}", announced.sha256):
            raise InvalidFieldError("sha256", "sha256 is the 32 bytes of the file's digest")

    def receive(self, source: str, upload_id: str, chunks: Iterable[Chunk]) -> Status:
        """Append chunks; land the file when all of it is there. What came before an error is kept."""
        with self.held(source, upload_id):
            if (concluded := self._concluded(source, upload_id)) is not None:
                return concluded
            spool = self._spool(source, upload_id, retry_s=0)  # it may just have been refused to another sender
            with spool.appending() as appender:
                for chunk in chunks:
                    _append(appender, chunk, spool.announced)
            if appender.position < spool.announced.size_bytes:
                return Status("open", appender.position)
            return self._land(spool, appender.sha256)

    def status(self, source: str, upload_id: str) -> Status:
        if (concluded := self._concluded(source, upload_id)) is not None:
            return concluded
        with self._lock:
            return Status("open", self._spool(source, upload_id).committed_bytes)

    def cancel(self, source: str, upload_id: str) -> Status:
        """Give an upload up, unless it has landed."""
        with self.held(source, upload_id):
            if (concluded := self._concluded(source, upload_id)) is not None:
                return concluded
            spool = self._spool(source, upload_id)
            manifest = self._zone.open_upload(source, safe_id(upload_id)).cancel(utc_now)
            self._forget(spool)
            return status_of(self._zone, manifest)

    def sweep(self) -> None:
        """Forget what nobody goes on with, and what a crash left of uploads that are decided."""
        expire_s = self._settings.grpc.expire_s
        with self._lock:
            self._spools.remove_remains()
        for name in self._spools.names():
            with suppress(RefusedError), self._holding(name):  # who has it already, needs it
                if spool := self._spools.get(name):
                    self._sweep(spool, expired=self._spools.expired(name, expire_s))
        self._leftovers.sweep(expire_s)

    def _sweep(self, spool: Spool, *, expired: bool) -> None:
        landing = self._landing(spool.announced)
        if decided := landing.manifest():
            landing.sweep(decided, alone=True)
            self._forget(spool)
        elif expired:
            log.info("forgetting %s: nobody has gone on with it", landing.chain)
            landing.give_up(utc_now)
            self._forget(spool)

    def _forget(self, spool: Spool) -> None:
        with self._lock:
            gone = spool.set_aside()
        remove(gone)

    def _landing(self, announced: Announced) -> UploadLanding:
        return self._zone.open_upload(announced.source, safe_id(announced.upload_id))

    def _land(self, spool: Spool, sha256: str) -> Status:
        announced = spool.announced
        if sha256 != announced.sha256:
            self._forget(spool)
            raise TerminalError("the file is not the one that was announced: its sha256 differs; was it changed?")
        door = door_of(self._project, announced.source)
        landing = self._landing(announced)
        pieces = _READERS[announced.format](spool.data, door, utc_now)
        try:
            manifest = land(
                pieces,
                door,
                landing,
                self._settings.grpc,
                self._metrics,
                sha256=announced.sha256,
                size_bytes=announced.size_bytes,
            )
        except FileRefusedError:
            self._forget(spool)
            raise
        self._forget(spool)
        if manifest.sha256 != announced.sha256:
            raise taken(announced.upload_id, manifest.state)
        log.info(
            "landed %s: %d rows, %d dead letters",
            landing.chain,
            manifest.rows,
            manifest.dead_rows,
            extra={"upload_id": announced.upload_id},
        )
        return status_of(self._zone, manifest)

    def _concluded(self, source: str, upload_id: str) -> Status | None:
        manifest = self._zone.open_upload(self._project.source(source).name, safe_id(upload_id)).manifest()
        return None if manifest is None else status_of(self._zone, manifest)

    def _name(self, source: str, upload_id: str) -> str:
        return f"{self._project.source(source).name}.{safe_id(upload_id)}"

    def _spool(self, source: str, upload_id: str, *, retry_s: float | None = None) -> Spool:
        if (spool := self._spools.get(self._name(source, upload_id))) is not None:
            return spool
        what = f"there is no upload {upload_id!r}; begin with StartUpload"
        raise RefusedError(grpc.StatusCode.NOT_FOUND, what, retry_s=retry_s)

    @contextmanager
    def held(self, source: str, upload_id: str) -> Generator[None]:
        """Hold an upload against other calls.

        Raises:
            RefusedError: one of them holds it.
        """
        with self._holding(self._name(source, upload_id)):
            yield

    @contextmanager
    def _holding(self, name: str) -> Generator[None]:
        with self._lock:
            if name in self._busy:
                what = f"another stream is sending upload {name!r}"
                raise RefusedError(grpc.StatusCode.ABORTED, what, retry_s=_RETRY_S)
            self._busy.add(name)
        try:
            yield
        finally:
            with self._lock:
                self._busy.discard(name)

    def _check_room(self, size_bytes: int) -> None:
        if len(self._spools.names()) >= self._settings.grpc.max_open_uploads:
            raise RefusedError(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "too many uploads are open; try again later", retry_s=_RETRY_S
            )
        check_disk(self._settings, size_bytes)


def _append(appender: Appender, chunk: Chunk, announced: Announced) -> None:
    if chunk.offset != appender.position:
        raise RefusedError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"{appender.position} bytes are there; send what follows them",
            retry_s=0,
            metadata={"committed_bytes": str(appender.position)},
        )
    data = chunk.data  # a copy, at each time
    if chunk.offset + len(data) > announced.size_bytes:
        raise TerminalError(f"the file is longer than the {announced.size_bytes} bytes that were announced")
    if google_crc32c.value(data) != chunk.crc32c:
        raise RefusedError(grpc.StatusCode.DATA_LOSS, f"the chunk at {chunk.offset} was damaged on its way", retry_s=0)
    appender.append(data)


def taken(upload_id: str, state: str) -> RefusedError:
    """The id stands for something else."""
    what = f"upload {upload_id!r} was {state} already" + (" with other content" if state != "cancelled" else "")
    return RefusedError(grpc.StatusCode.ALREADY_EXISTS, f"{what}; choose another id")
