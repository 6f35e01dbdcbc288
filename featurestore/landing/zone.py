"""The landing zone: which batches there are, and their rows."""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from featurestore.entity_id import hash64
from featurestore.errors import CorruptFileError, TerminalError
from featurestore.landing import dead_letters, parquet
from featurestore.landing.batch import Batch, utc_now
from featurestore.landing.believed import Believed
from featurestore.landing.chain import BATCH_FILE, Floor, read_floor
from featurestore.landing.dead_letters import DeadLetter
from featurestore.landing.disk import TEMPORARY, DiskStorage
from featurestore.landing.erasures import Erasures
from featurestore.landing.publish import Fenced, Published, file_name, publish, read_batch
from featurestore.landing.rewritten import RewrittenFiles
from featurestore.landing.storage import Storage, open_storage
from featurestore.landing.uploads import DIRECTORY, UploadLanding
from featurestore.settings import Settings

_LEFTOVER_FILE = re.compile(rf"\.?(\d{{20}})\.[0-9a-f]+({re.escape(dead_letters.SUFFIX)}|{re.escape(TEMPORARY)})")


def kafka_chain(source: str, cluster_id: str, topic_id: str, partition: int) -> str:
    """The chain of one partition; a recreated topic or cluster is another generation."""
    return f"{source}/gen={cluster_id}.{topic_id}/partition={partition}"


def replay_chain(origin: Batch) -> str:
    """The chain of those dead letters of a batch that were replayed: whoever replays them meets there."""
    return f"{origin.source}/replay={hash64(origin.batch_id):016x}"


def job_chain(source: str, job_id: str) -> str:
    """The chain of a job's rows: one batch, from 0, so that a job is landed once however often it is sent."""
    return f"{source}/job={job_id}"


class LandingZone:
    """Landed batches in a storage. Thread-safe; what a batch says of itself never changes, so it is read once."""

    def __init__(self, storage: Storage | Path, erasures: Erasures | None = None) -> None:
        """A path is a directory of the local disk; `erasures` are those that readers are to know of."""
        self.storage: Storage = DiskStorage(storage) if isinstance(storage, Path) else storage
        self.erasures = erasures
        self._lock = threading.Lock()
        self._believed = Believed(self.storage)
        self._rewritten = RewrittenFiles(self.storage)

    @classmethod
    def of(cls, settings: Settings) -> "LandingZone":
        """That of a data directory; nothing is asked before the first call."""
        return cls(open_storage(settings), Erasures(settings.erasures_dir))

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
        origin: str = "",
        now: Callable[[], datetime] = utc_now,
    ) -> Published | Fenced:
        """See `featurestore.landing.publish.publish`."""
        return publish(
            self.storage,
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
            origin=origin,
        )

    def floor(self, chain: str) -> Floor:
        """Where a chain begins."""
        return read_floor(self.storage, chain)

    def removed(self, source: str) -> Floor:
        """What of a source was removed, because it was older than it is kept; as far as `batches` has seen."""
        with self._lock:
            floors = self._believed.floors(source)
        return Floor(
            batches=sum(one.batches for one in floors),
            rows=sum(one.rows for one in floors),
            dead_rows=sum(one.dead_rows for one in floors),
            until=max((one.until for one in floors), default=0),
        )

    def open_upload(self, source: str, upload_id: str) -> UploadLanding:
        return UploadLanding(self.storage, source, upload_id)

    def uploads(self, source: str) -> list[UploadLanding]:
        """Every upload of a source that anything was written of."""
        names = [name for name in self.storage.directories(source) if name.startswith(DIRECTORY)]
        return [self.open_upload(source, name.removeprefix(DIRECTORY)) for name in names]

    def tail(self, chain: str) -> Batch | None:
        """The last batch of a Kafka chain, read fresh from the storage; None where nothing has landed."""
        starts = [int(match[1]) for match in map(BATCH_FILE.fullmatch, self.storage.names(chain)) if match]
        if not starts:
            return None
        self.storage.settle(chain)
        return read_batch(self.storage, f"{chain}/{file_name(max(starts))}")

    def batches(self, source: str | None = None) -> list[Batch]:
        """Every visible batch (of one source), by landing time; what is returned is durable."""
        with self._lock:
            for name in [source] if source else self.storage.directories():
                self._believed.refresh(name)
            return self._believed.by_landing(source)

    def chain(self, chain: str) -> list[Batch]:
        """The batches of one chain as it is now, in its order.

        Raises:
            CorruptFileError: not all of it can be believed.
        """
        with self._lock:
            batches = self._believed.read_chain(chain)
            if problem := self._believed.alarm(chain):
                raise CorruptFileError(problem)
            return list(batches)

    def alarms(self, source: str | None = None) -> list[str]:
        """What `batches` did not believe when it looked last: damaged files. Nothing is lost, but somebody must act.

        What lies behind a damaged file of a chain waits; a file restored from a backup is believed again.
        """
        with self._lock:
            return self._believed.alarms(source)

    def files(self, source: str) -> list[str]:
        """The paths below the landing root of the files that hold the rows of the visible batches of a source."""
        return [path for batches in self._by_chain(source).values() for path in self._rewritten.paths(batches)]

    def _by_chain(self, source: str) -> dict[str, list[Batch]]:
        found: dict[str, list[Batch]] = {}
        for batch in self.batches(source):
            found.setdefault(batch.chain, []).append(batch)
        return found

    def batch(self, batch_id: str) -> Batch:
        """One batch by its id.

        Raises:
            KeyError: no such batch is visible.
        """
        chain = batch_id.rpartition("/")[0]
        with self._lock:
            for batch in self._believed.known(chain):
                if batch.batch_id == batch_id:
                    return batch
            if f"/{DIRECTORY}" not in chain:
                try:
                    return read_batch(self.storage, batch_id)
                except FileNotFoundError:
                    return self._rewritten.find(batch_id)[1]
            for batch in self._believed.read_upload(chain):
                if batch.batch_id == batch_id:
                    return batch
        raise KeyError(batch_id)

    def read(self, batch: Batch) -> pa.Table:
        """The rows of a batch, every byte checked, but for those of entities that were erased since they landed.

        Raises:
            CorruptFileError: the file is not what was landed.
            TerminalError: its rows were removed, because they were older than they are kept.
        """
        rows = self._read_rows(batch)
        erased = self.erasures.erased(batch.source, rows, batch.created_at) if self.erasures else None
        return rows if erased is None else rows.filter(pc.invert(erased))

    def _read_rows(self, batch: Batch) -> pa.Table:
        try:
            with self.storage.open(batch.batch_id) as file:
                return parquet.read(file, f"{self.storage.address}/{batch.batch_id}", batch.digest)
        except (FileNotFoundError, CorruptFileError) as error:
            # Damaged may be what a writer left that had not noticed that it was no longer its turn.
            rows = self._rewritten.rows(batch)
            if rows is None and isinstance(error, CorruptFileError):
                raise
            if rows is None:
                raise TerminalError(f"{batch.batch_id} was removed: it is older than its source is kept") from None
            return rows

    def dead_letters(self, source: str | None = None) -> Iterator[tuple[Batch, DeadLetter]]:
        """Every dead letter of visible batches that was not replayed, by landing time."""
        for batch in self.batches(source):
            replayed = self.replayed(batch)
            for one in self.dead_letters_of(batch):
                if one.sequence not in replayed:
                    yield batch, one

    def replayed(self, origin: Batch) -> set[int]:
        """The sequences of those dead letters of a batch that have been landed after all."""
        if not origin.dead_letters:
            return set()
        found: set[int] = set()
        for batch in self.chain(replay_chain(origin)):
            found.update(self.read(batch)["sequence"].to_numpy().tolist())
        return found

    def dead_letters_of(self, batch: Batch) -> list[DeadLetter]:
        """What came with a batch and could not be landed; nothing once it is older than dead letters are kept."""
        try:
            found = dead_letters.read(self.storage, f"{batch.chain}/{batch.dead_letters}") if batch.dead_letters else []
        except FileNotFoundError:
            return []
        if self.erasures is None or not found:
            return found
        erased = self.erasures.erased_letters(batch.source, found, batch.created_at)
        return [one for one, is_erased in zip(found, erased, strict=True) if not is_erased]

    def sweep(self, chain: str) -> int:
        """Remove what interrupted or fenced writers left below the tail of a Kafka chain; return how many files.

        Nothing that a batch names is touched, and nothing at or above the tail: its writer may still publish.
        """
        tail = self.tail(chain)
        swept = 0
        for name in self.storage.names(chain) if tail else []:
            match = _LEFTOVER_FILE.fullmatch(name)
            if match and tail and int(match[1]) < tail.start and not self._names_dead_letters(chain, match[1], name):
                self.storage.remove(f"{chain}/{name}")
                swept += 1
        return swept

    def _names_dead_letters(self, chain: str, start: str, name: str) -> bool:
        try:
            return self.batch(f"{chain}/{start}.parquet").dead_letters == name
        except KeyError:
            return False
        except CorruptFileError:
            return True  # it may
