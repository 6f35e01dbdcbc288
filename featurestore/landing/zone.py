"""The landing zone: which batches there are, and their rows."""

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow as pa

from featurestore.entity_id import hash64
from featurestore.errors import CorruptFileError, TerminalError
from featurestore.landing import dead_letters, parquet, rewritten
from featurestore.landing.batch import Batch
from featurestore.landing.chain import BATCH_FILE, Floor, files_from, floor
from featurestore.landing.dead_letters import DeadLetter
from featurestore.landing.disk import TEMPORARY, DiskStorage
from featurestore.landing.publish import Fenced, Published, file_name, publish, read_batch
from featurestore.landing.rewritten import RewrittenFiles
from featurestore.landing.storage import Storage
from featurestore.landing.uploads import REMOVED, UploadLanding, read_manifest

log = logging.getLogger(__name__)

_LEFTOVER_FILE = re.compile(rf"\.?(\d{{20}})\.[0-9a-f]+({re.escape(dead_letters.SUFFIX)}|{re.escape(TEMPORARY)})")


def utc_now() -> datetime:
    return datetime.now(UTC)


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
    """Landed batches in a storage. Thread-safe; landed files never change, so what was read once is kept."""

    def __init__(self, storage: Storage | Path) -> None:
        """A path is a directory of the local disk."""
        self.storage: Storage = DiskStorage(storage) if isinstance(storage, Path) else storage
        self._lock = threading.Lock()
        self._chains: dict[str, list[Batch]] = {}  # the believed files of a chain, in order
        self._uploads: dict[str, list[Batch]] = {}  # landed uploads, by chain
        self._floors: dict[str, Floor] = {}  # of chains that something was removed from
        self._listed: dict[str, object] = {}  # chains and the state of their directory when it was last listed
        self._alarms: dict[str, str] = {}  # chains and what is wrong with them, if anything is
        self._sorted: dict[str | None, list[Batch]] = {}  # what `batches` returned; emptied by anything new
        self._rewritten = RewrittenFiles(self.storage)

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
        offset = floor(self.storage.names(chain))
        try:
            with self.storage.open(f"{chain}/{offset:020d}.floor") as file:
                return msgspec.json.decode(file.read() or b"{}", type=Floor)
        except FileNotFoundError:
            return Floor(offset=offset)

    def removed(self, source: str) -> Floor:
        """What of a source was removed, because it was older than it is kept; as far as `batches` has seen."""
        with self._lock:
            floors = [one for chain, one in self._floors.items() if chain.partition("/")[0] == source]
        return Floor(
            batches=sum(one.batches for one in floors),
            rows=sum(one.rows for one in floors),
            dead_rows=sum(one.dead_rows for one in floors),
            until=max((one.until for one in floors), default=0),
        )

    def open_upload(self, source: str, upload_id: str) -> UploadLanding:
        return UploadLanding(self.storage, source, upload_id)

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

    def chain(self, chain: str) -> list[Batch]:
        """The batches of one chain as it is now, in its order.

        Raises:
            CorruptFileError: not all of it can be believed.
        """
        with self._lock:
            self._read_chain(chain)
            if problem := self._alarms[chain]:
                raise CorruptFileError(problem)
            return list(self._chains[chain])

    def alarms(self, source: str | None = None) -> list[str]:
        """What `batches` did not believe when it looked last: damaged files. Nothing is lost, but somebody must act.

        What lies behind a damaged file of a chain waits; a file restored from a backup is believed again.
        """
        with self._lock:
            found = sorted(self._alarms.items())
            return [problem for chain, problem in found if problem and source in {None, chain.partition("/")[0]}]

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
            known = self._uploads.get(chain) or self._chains.get(chain) or []
            for batch in known:
                if batch.batch_id == batch_id:
                    return batch
            if "/upload=" not in chain:
                try:
                    return read_batch(self.storage, batch_id)
                except FileNotFoundError:
                    return self._rewritten.find(batch_id)[1]
            for batch in self._read_upload(chain):
                if batch.batch_id == batch_id:
                    return batch
        raise KeyError(batch_id)

    def read(self, batch: Batch) -> pa.Table:
        """The rows of a batch, every byte checked.

        Raises:
            CorruptFileError: the file is not what was landed.
            TerminalError: its rows were removed, because they were older than they are kept.
        """
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
            return dead_letters.read(self.storage, f"{batch.chain}/{batch.dead_letters}") if batch.dead_letters else []
        except FileNotFoundError:
            return []

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

    def _refresh(self, source: str) -> None:
        """Look for what is new in the directories of a source; those that did not change are not listed again."""
        for name in self.storage.directories(source):
            if name.startswith("upload="):
                self._read_upload(f"{source}/{name}")
            elif name.startswith("gen="):
                for partition in self.storage.directories(f"{source}/{name}"):
                    self._read_chain(f"{source}/{name}/{partition}")
            elif name.startswith("replay=") or (name.startswith("job=") and not self._chains.get(f"{source}/{name}")):
                self._read_chain(f"{source}/{name}")

    def _read_chain(self, chain: str) -> None:
        """Read the files after the ones that are known; believe them as far as they follow one another."""
        state = self.storage.state(chain)
        if state is not None and self._listed.get(chain) == state:
            return
        names = self.storage.names(chain)
        begin, known = floor(names), self._chains.setdefault(chain, [])
        if begin > self._floors.get(chain, Floor()).offset:
            self._floors[chain] = self.floor(chain)
            known[:] = [batch for batch in known if batch.start >= begin]
            self._sorted.clear()
        new = files_from(names, known[-1].end if known else begin)
        if new:
            self.storage.settle(chain)
            self._sorted.clear()
        problem = self._follow(chain, known, new, known[-1].end if known else begin)
        self._alarm(chain, problem)
        self._listed[chain] = None if problem else state

    def _follow(self, chain: str, known: list[Batch], new: Mapping[int, str], expected: int) -> str:
        """Read files into `known` as long as they follow one another; return what is wrong with one that does not."""
        rewritten_until = -1
        for start, name in new.items():
            if start < rewritten_until:
                continue  # not removed yet, and in a rewritten file too
            try:
                found = [batch for batch in self._read_file(f"{chain}/{name}") if batch.start >= expected]
            except CorruptFileError as error:
                return str(error)
            except FileNotFoundError:  # compacted since it was listed; looked at again the next time
                return ""
            if not found or found[0].start != expected:
                return f"{chain}: a file starts at {start}, but {expected} comes next"
            known += found
            expected = found[-1].end
            if name != file_name(start):
                rewritten_until = expected
        return ""

    def _read_file(self, path: str) -> Sequence[Batch]:
        if rewritten.start_of(path.rpartition("/")[2]) is None:
            return [read_batch(self.storage, path)]
        return rewritten.read_rewritten(self.storage, path).batches

    def _alarm(self, chain: str, problem: str) -> None:
        if problem and self._alarms.get(chain) != problem:
            log.error("%s; it is not believed, and what has landed after it waits", problem)
        self._alarms[chain] = problem

    def _read_upload(self, chain: str) -> list[Batch]:
        """The parts of a landed upload; none while it is open or after it was cancelled."""
        if chain not in self._uploads:
            try:
                manifest = read_manifest(self.storage, chain)
            except CorruptFileError as error:
                self._alarm(chain, str(error))
                return []
            self._alarm(chain, "")
            if manifest is None:
                return []
            if REMOVED in self.storage.names(chain):
                gone = manifest.batches(chain)
                self._floors[chain] = Floor(
                    batches=len(gone), rows=manifest.rows, dead_rows=manifest.dead_rows, until=manifest.created_at
                )
            self._uploads[chain] = [] if chain in self._floors else manifest.batches(chain)
            self._sorted.clear()
        return self._uploads[chain]
