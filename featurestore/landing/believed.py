"""What is believed of the landing zone: chains, as far as their files follow one another, and landed uploads."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from featurestore.errors import CorruptFileError
from featurestore.landing import rewritten
from featurestore.landing.batch import Batch
from featurestore.landing.chain import Floor, files_from, floor, read_floor
from featurestore.landing.publish import file_name, read_batch
from featurestore.landing.storage import Storage
from featurestore.landing.uploads import DIRECTORY, REMOVED, read_manifest

log = logging.getLogger(__name__)

Item = TypeVar("Item")


class Believed:
    """Remembers what it has read: landed files never change. Used by one thread at a time."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._chains: dict[str, list[Batch]] = {}  # the believed files of a chain, in order
        self._uploads: dict[str, list[Batch]] = {}  # landed uploads, by chain
        self._floors: dict[str, Floor] = {}  # of chains that something was removed from
        self._listed: dict[str, object] = {}  # chains and the state of their directory when it was last listed
        self._alarms: dict[str, str] = {}  # chains and what is wrong with them, if anything is
        self._sorted: dict[str | None, list[Batch]] = {}  # what `by_landing` returned; emptied by anything new

    def known(self, chain: str) -> Sequence[Batch]:
        """The batches of a chain or upload, as it was when it was read last."""
        return self._uploads.get(chain) or self._chains.get(chain) or []

    def by_landing(self, source: str | None) -> list[Batch]:
        """What is known (of one source), by landing time."""
        if source not in self._sorted:
            chains = [*_of(source, self._chains), *_of(source, self._uploads)]
            found = [batch for batches in chains for batch in batches]
            self._sorted[source] = sorted(found, key=lambda batch: (batch.created_at, batch.batch_id))
        return list(self._sorted[source])

    def floors(self, source: str) -> list[Floor]:
        """What was removed of its chains, as far as is known."""
        return list(_of(source, self._floors))

    def alarm(self, chain: str) -> str:
        """What is wrong with a chain, if anything is."""
        return self._alarms.get(chain, "")

    def alarms(self, source: str | None) -> list[str]:
        """What is wrong with any chain (of one source)."""
        return [problem for problem in _of(source, dict(sorted(self._alarms.items()))) if problem]

    def refresh(self, source: str) -> None:
        """Look for what is new in the directories of a source; those that did not change are not listed again."""
        for name in self._storage.directories(source):
            if name.startswith(DIRECTORY):
                self.read_upload(f"{source}/{name}")
            elif name.startswith("gen="):
                for partition in self._storage.directories(f"{source}/{name}"):
                    self.read_chain(f"{source}/{name}/{partition}")
            elif name.startswith("replay=") or (name.startswith("job=") and not self._chains.get(f"{source}/{name}")):
                self.read_chain(f"{source}/{name}")

    def read_chain(self, chain: str) -> Sequence[Batch]:
        """Read the files after the ones that are known; believe them as far as they follow one another."""
        state, known = self._storage.state(chain), self._chains.setdefault(chain, [])
        if state is not None and self._listed.get(chain) == state:
            return known
        names = self._storage.names(chain)
        begin = floor(names)
        if begin > self._floors.get(chain, Floor()).offset:
            self._floors[chain] = read_floor(self._storage, chain)
            known[:] = [batch for batch in known if batch.start >= begin]
            self._sorted.clear()
        new = files_from(names, known[-1].end if known else begin)
        if new:
            self._storage.settle(chain)
            self._sorted.clear()
        problem = self._follow(chain, known, new, known[-1].end if known else begin)
        self._note(chain, problem)
        self._listed[chain] = None if problem else state
        return known

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
            return [read_batch(self._storage, path)]
        return rewritten.read_rewritten(self._storage, path).batches

    def _note(self, chain: str, problem: str) -> None:
        if problem and self._alarms.get(chain) != problem:
            log.error("%s; it is not believed, and what has landed after it waits", problem)
        self._alarms[chain] = problem

    def read_upload(self, chain: str) -> Sequence[Batch]:
        """The parts of a landed upload; none while it is open or after it was cancelled."""
        if chain not in self._uploads:
            try:
                manifest = read_manifest(self._storage, chain)
            except CorruptFileError as error:
                self._note(chain, str(error))
                return []
            self._note(chain, "")
            if manifest is None:
                return []
            if REMOVED in self._storage.names(chain):
                gone = manifest.batches(chain)
                self._floors[chain] = Floor(
                    batches=len(gone), rows=manifest.rows, dead_rows=manifest.dead_rows, until=manifest.created_at
                )
            self._uploads[chain] = [] if chain in self._floors else manifest.batches(chain)
            self._sorted.clear()
        return self._uploads[chain]


def _of(source: str | None, by_chain: Mapping[str, Item]) -> Iterator[Item]:
    return (one for chain, one in by_chain.items() if source in {None, chain.partition("/")[0]})
