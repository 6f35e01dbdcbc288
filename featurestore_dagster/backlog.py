"""What has landed and is not yet applied or pushed, kept in memory between the ticks of a process."""

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from featurestore.database.client import Database
from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView
from featurestore.landing.batch import Batch
from featurestore.landing.pending import Pair, Pending, Target, find_pending
from featurestore.offline.log import Ledger, LedgerRow, registered
from featurestore.offline.tables import schema_job
from featurestore.online.store import OnlineStore
from featurestore.versions import activate_complete

REBUILD_ABOVE = 500  # ledger lines that Redis lacks: more are not a crash in between, Redis has lost them
LOOK_AGAIN = timedelta(seconds=60)  # even if nothing landed: the database may have been restored


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a look has found: batches that wait for runs, and views whose online values have to be rebuilt."""

    pending: tuple[Pending, ...]
    lost: tuple[FeatureView, ...]


class Backlog:
    """Compares landing zone, ledger and pushed positions; thread-safe.

    Ledger lines that Redis lacks are pushed again: a few, as a crash leaves them, from their batches; of a view that
    lacks more, or lines whose batches are no longer kept, or whose lines are of another database, from the log, which
    has one newest row per entity whatever the landing zone still holds. Such a view is lost.

    A look costs the database one query for the ledger lines that are new. `is_quiet` costs no query: a batch that
    the ledger covers stays covered, so only what landed since, and what Redis lists, is looked at.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ledger = Ledger()
        self._targets: tuple[Target, ...] = ()
        self._epoch = ""
        self._covered: set[str] = set()  # batches that every target of their source has applied, or leaves alone
        self._looked_at: datetime | None = None
        self._may_activate = True  # a version of a view may still become the active one

    def is_quiet(
        self, project: Project, landed: Sequence[Batch], online: OnlineStore, *, parked: Collection[str], now: datetime
    ) -> bool:
        """Whether a look would find nothing: no batch landed since, and Redis still lists every line."""
        with self._lock:
            if self._looked_at is None or not timedelta(0) <= now - self._looked_at < LOOK_AGAIN:
                return False
            if any(batch.batch_id not in self._covered and batch.batch_id not in parked for batch in landed):
                return False
            return all(self._is_settled(view, online) for view in project.feature_views if view.online_features)

    def look(
        self, project: Project, landed: Sequence[Batch], database: Database, online: OnlineStore, *, now: datetime
    ) -> Waiting:
        """What waits now. To be called after live runs were listed, so that a run that ends meanwhile counts as done.

        Raises:
            JobRefusedError: a view was changed and kept its version.
            TransientError: a service does not answer.
        """
        with self._lock:
            self._refresh(project, database)
            unpushed: set[Pair] = set()
            lost: list[FeatureView] = []
            kept = {batch.batch_id for batch in landed}
            for view in project.feature_views:
                missing, log = self._unpushed(view, online) if view.online_features else ([], "")
                # A line of just now may be of a batch that landed after `landed` was listed.
                is_gone = any(row.batch_id not in kept and now - row.applied_at > LOOK_AGAIN for row in missing)
                if len(missing) > REBUILD_ABOVE or is_gone or log not in {"", self._ledger.epoch}:
                    lost.append(view)
                else:
                    unpushed.update((row.batch_id, view.target) for row in missing)
            again = {batch_id for batch_id, _ in unpushed}
            open_ = [batch for batch in landed if batch.batch_id not in self._covered or batch.batch_id in again]
            pending = find_pending(open_, self._targets, self._ledger.rows, unpushed)
            waits = {one.batch.batch_id for one in pending}
            self._covered.update(batch.batch_id for batch in open_ if batch.batch_id not in waits)
            self._may_activate = self._may_activate and activate_complete(project, self._ledger, database, online)
            self._looked_at = now
            return Waiting(tuple(pending), tuple(lost))

    def forget(self) -> None:
        """Have the next look compare everything that has landed, whatever was found before."""
        with self._lock:
            self._covered.clear()
            self._looked_at = None

    def ledger(self, project: Project, database: Database) -> Ledger:
        """The ledger as it is now."""
        with self._lock:
            self._refresh(project, database)
            return self._ledger

    def targets(self) -> tuple[Target, ...]:
        """The declared view versions, and from when on batches are theirs."""
        with self._lock:
            return self._targets

    def _refresh(self, project: Project, database: Database) -> None:
        self._ledger.refresh(database)
        if not self._targets or self._ledger.epoch != self._epoch:  # the first look, or the database was restored
            database.ensure(schema_job(project))
            self._covered.clear()
            self._may_activate = True
            self._epoch = self._ledger.epoch
            self._targets = _targets(project, self._ledger, database)

    def _is_settled(self, view: FeatureView, online: OnlineStore) -> bool:
        lines = self._ledger.lines(view.target)
        pushed = online.pushed(view)
        is_whole = not pushed.above and (not lines or lines[-1].commit_seq in pushed)
        return is_whole and pushed.log in {"", self._ledger.epoch}

    def _unpushed(self, view: FeatureView, online: OnlineStore) -> tuple[list[LedgerRow], str]:
        """The lines that Redis does not list, and whose it lists; what it lists is settled on the way."""
        pushed = online.pushed(view)
        after = [row for row in self._ledger.lines(view.target) if row.commit_seq > pushed.position]
        if pushed.above:
            online.settle(view, [row.commit_seq for row in after], above=pushed.position, log=self._ledger.epoch)
        return [row for row in after if row.commit_seq not in pushed], pushed.log


def _targets(project: Project, ledger: Ledger, database: Database) -> tuple[Target, ...]:
    """Every batch of a source is its first views' own; later views start with what lands after they were registered."""
    since = registered(database)
    first_applied: dict[str, datetime] = {}
    for (batch_id, _), row in ledger.rows.items():
        source = batch_id.partition("/")[0]
        first_applied[source] = min(row.applied_at, first_applied.get(source, row.applied_at))
    targets: list[Target] = []
    for view in project.feature_views:
        start, source = since[view.target], view.source.name
        is_later = source in first_applied and first_applied[source] < start
        targets.append(Target(name=view.target, source=source, since=start if is_later else None))
    return tuple(targets)
