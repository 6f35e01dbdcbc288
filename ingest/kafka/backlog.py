"""How much has landed and waits to be processed: what intake is held back by."""

import logging
import threading
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from featurestore.database.client import Database
from featurestore.definitions.project import Project
from featurestore.definitions.source import KafkaSource
from featurestore.errors import FeatureStoreError
from featurestore.landing.pending import Pair, Target, find_pending
from featurestore.landing.zone import LandingZone
from featurestore.offline.log import read_news, registered

log = logging.getLogger(__name__)

_LOOK_S = 5.0  # between looks
_PAGE_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Standing:
    """What the last look has found."""

    pending_bytes: int = 0  # landed files of Kafka sources that some registered view has not applied
    alarms: tuple[str, ...] = ()  # landed files that cannot be believed


class Backlog:
    """Compares the landing zone with the ledger; remembers only what is open.

    It looks in a thread of its own: neither disk nor database may keep Kafka from being polled. While the database does
    not answer, the last look counts; then the disk's reserve is what bounds intake.
    """

    def __init__(self, zone: LandingZone, project: Project, connect: Callable[[], Database]) -> None:
        self._zone, self._project, self._connect = zone, project, connect
        self._sources = [source.name for source in project.sources if isinstance(source, KafkaSource)]
        self.standing = Standing()
        self._forget("")

    def _forget(self, epoch: str) -> None:
        self._epoch, self._last = epoch, 0
        self._applied: set[Pair] = set()  # of batches that are still open
        self._covered: set[str] = set()  # batches that every view of their source has applied, or leaves alone

    @contextmanager
    def watching(self) -> Generator[None]:
        """Look again and again while the context is open."""
        stopping = threading.Event()
        thread = threading.Thread(target=self._watch, args=(stopping,), name="backlog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopping.set()  # not joined: a look may wait for the database, and has nothing to finish

    def _watch(self, stopping: threading.Event) -> None:
        trouble = ""
        with closing(self._connect()) as database:
            while not stopping.is_set():
                try:
                    self.look(database)
                    trouble = ""
                except FeatureStoreError as error:
                    if str(error) != trouble:
                        trouble = str(error)
                        log.warning("what waits to be processed is not known: %s", trouble)
                stopping.wait(_LOOK_S)

    def look(self, database: Database) -> None:
        """Look once.

        Raises:
            TransientError: the landing zone or the database does not answer.
        """
        landed = [batch for source in self._sources for batch in self._zone.batches(source)]
        alarms = tuple(alarm for source in self._sources for alarm in self._zone.alarms(source))
        self.standing = Standing(self.standing.pending_bytes, alarms)
        self._read_ledger(database)
        since = registered(database)
        targets = [
            Target(name=view.target, source=view.source.name, since=since[view.target])
            for view in self._project.feature_views
            if view.target in since
        ]
        still_open = [batch for batch in landed if batch.batch_id not in self._covered]
        waiting = {one.batch.batch_id: one.batch for one in find_pending(still_open, targets, self._applied, ())}
        if targets:
            self._covered.update(batch.batch_id for batch in still_open if batch.batch_id not in waiting)
        self._applied = {pair for pair in self._applied if pair[0] not in self._covered}
        self.standing = Standing(sum(batch.bytes for batch in waiting.values()), alarms)

    def _read_ledger(self, database: Database) -> None:
        more = True
        while more:
            news = read_news(database, self._last, _PAGE_ROWS)
            if news.epoch != self._epoch:
                self._forget(news.epoch)
                continue
            own = (row for row in news.rows if row.batch_id.partition("/")[0] in self._sources)
            self._applied.update((row.batch_id, row.target) for row in own if row.batch_id not in self._covered)
            self._last = news.rows[-1].commit_seq if news.rows else self._last
            more = len(news.rows) == _PAGE_ROWS
