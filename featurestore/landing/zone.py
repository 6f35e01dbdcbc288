"""The landing zone: which batches there are, and their rows."""

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from featurestore.landing import dead_letters, parquet
from featurestore.landing.batch import Batch
from featurestore.landing.dead_letters import DeadLetter
from featurestore.landing.disk import TEMPORARY, fsync_directory
from featurestore.landing.publish import Fenced, Published, publish, read_batch
from featurestore.landing.uploads import UploadLanding, read_manifest

log = logging.getLogger(__name__)

_SETTLED_NS = 2_000_000_000
_BATCH_FILE = re.compile(r"(\d{20})\.parquet")
_LEFTOVER_FILE = re.compile(rf"\.?(\d{{20}})\.[0-9a-f]+({re.escape(dead_letters.SUFFIX)}|{re.escape(TEMPORARY)})")


def utc_now() -> datetime:
    return datetime.now(UTC)


def kafka_chain(source: str, cluster_id: str, topic_id: str, partition: int) -> str:
    """The chain of one partition; a recreated topic or cluster is another generation."""
    return f"{source}/gen={cluster_id}.{topic_id}/partition={partition}"


class LandingZone:
    """Landed batches below `root`. Thread-safe; landed files never change, so what was read once is kept."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._chains: dict[str, list[Batch]] = {}  # the believed files of a chain, in order
        self._uploads: dict[str, list[Batch]] = {}  # landed uploads, by chain
        self._listed: dict[Path, int] = {}  # directories and the time of their last change, as it was when listed
        self._sorted: dict[str | None, list[Batch]] = {}  # what `batches` returned; emptied by anything new

    def publish(
        self,
        chain: str,
        table: pa.Table,
        *,
        source: str,
        start: int,
        end: int,
        schema_version: str,
        previous: Batch | None,
        dead: Sequence[DeadLetter] = (),
        absent_rows: int = 0,
        now: Callable[[], datetime] = utc_now,
    ) -> Published | Fenced:
        """See `featurestore.landing.publish.publish`."""
        return publish(
            self.root,
            chain,
            table,
            source=source,
            start=start,
            end=end,
            schema_version=schema_version,
            previous=previous,
            now=now,
            dead=dead,
            absent_rows=absent_rows,
        )

    def open_upload(self, source: str, upload_id: str) -> UploadLanding:
        return UploadLanding(self.root, source, upload_id)

    def tail(self, chain: str) -> Batch | None:
        """The last batch of a Kafka chain, read fresh from the disk; None where nothing has landed."""
        directory = self.root / chain
        starts = [match[1] for match in map(_BATCH_FILE.fullmatch, _names(directory)) if match]
        if not starts:
            return None
        fsync_directory(directory)
        return read_batch(self.root, f"{chain}/{max(starts)}.parquet")

    def batches(self, source: str | None = None) -> list[Batch]:
        """Every visible batch (of one source), by landing time; what is returned is durable."""
        with self._lock:
            for name in [source] if source else _directories(self.root):
                self._refresh(name)
            if source not in self._sorted:
                found = [
                    batch
                    for known in (self._chains, self._uploads)
                    for chain, batches in known.items()
                    if source in {None, chain.partition("/")[0]}
                    for batch in batches
                ]
                self._sorted[source] = sorted(found, key=lambda batch: (batch.created_at, batch.batch_id))
            return list(self._sorted[source])

    def batch(self, batch_id: str) -> Batch:
        """One batch by its id.

        Raises:
            KeyError: no such batch is visible.
        """
        chain = batch_id.rpartition("/")[0]
        with self._lock:
            known = self._uploads.get(chain) or self._chains.get(chain) or []
            for batch in known:
                if batch.batch_id == batch_id:
                    return batch
            if "/upload=" not in chain and (self.root / batch_id).exists():
                return read_batch(self.root, batch_id)
            for batch in self._read_upload(chain):
                if batch.batch_id == batch_id:
                    return batch
        raise KeyError(batch_id)

    def read(self, batch: Batch) -> pa.Table:
        """The rows of a batch, every byte checked.

        Raises:
            CorruptFileError: the file is not what was landed.
        """
        return parquet.read(self.root / batch.batch_id, batch.digest)

    def dead_letters(self, source: str | None = None) -> Iterator[tuple[Batch, DeadLetter]]:
        """Every dead letter of visible batches, by landing time."""
        for batch in self.batches(source):
            for one in self.dead_letters_of(batch):
                yield batch, one

    def dead_letters_of(self, batch: Batch) -> list[DeadLetter]:
        """What came with a batch and could not be landed."""
        return dead_letters.read(self.root / batch.chain / batch.dead_letters) if batch.dead_letters else []

    def sweep(self, chain: str) -> int:
        """Remove what interrupted or fenced writers left below the tail of a Kafka chain; return how many files.

        Nothing that a batch names is touched, and nothing at or above the tail: its writer may still publish.
        """
        tail = self.tail(chain)
        swept = 0
        for name in _names(self.root / chain) if tail else []:
            match = _LEFTOVER_FILE.fullmatch(name)
            if match and tail and int(match[1]) < tail.start and not self._names_dead_letters(chain, match[1], name):
                (self.root / chain / name).unlink(missing_ok=True)
                swept += 1
        return swept

    def _names_dead_letters(self, chain: str, start: str, name: str) -> bool:
        batch_id = f"{chain}/{start}.parquet"
        return (self.root / batch_id).exists() and read_batch(self.root, batch_id).dead_letters == name

    def _refresh(self, source: str) -> None:
        """Look for what is new in the directories of a source; those that did not change are not listed again."""
        for name in _directories(self.root / source):
            if name.startswith("upload="):
                self._read_upload(f"{source}/{name}")
            elif name.startswith("gen="):
                for partition in _directories(self.root / source / name):
                    self._read_chain(f"{source}/{name}/{partition}")

    def _read_chain(self, chain: str) -> None:
        """Read the files after the ones that are known; believe them as far as they follow one another."""
        directory = self.root / chain
        if self._is_unchanged(directory):
            return
        known = self._chains.setdefault(chain, [])
        last = known[-1].start if known else -1
        new = sorted(int(m[1]) for m in map(_BATCH_FILE.fullmatch, _names(directory)) if m and int(m[1]) > last)
        if new:
            fsync_directory(directory)
            self._sorted.clear()
        for start in new:
            if known and start != known[-1].end:
                log.error("%s: a file starts at %d, but %d comes next; it is not believed", chain, start, known[-1].end)
                break
            known.append(read_batch(self.root, f"{chain}/{start:020d}.parquet"))

    def _read_upload(self, chain: str) -> list[Batch]:
        """The parts of a landed upload; none while it is open or after it was cancelled."""
        if chain not in self._uploads:
            manifest = read_manifest(self.root / chain)
            if manifest is None:
                return []
            self._uploads[chain] = manifest.batches(chain)
            self._sorted.clear()
        return self._uploads[chain]

    def _is_unchanged(self, directory: Path) -> bool:
        try:
            changed_ns = directory.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        if self._listed.get(directory) == changed_ns:
            return True
        # A change within the clock's grain of this one would leave the same time: believe only what has settled.
        if time.time_ns() - changed_ns > _SETTLED_NS:
            self._listed[directory] = changed_ns
        return False


def _directories(path: Path) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except FileNotFoundError:
        return []


def _names(path: Path) -> list[str]:
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []
