"""What was produced, landed, logged and pushed: the numbers that have to add up."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from featurestore.database.client import Database
from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView
from featurestore.landing.batch import from_micros
from featurestore.landing.zone import LandingZone
from featurestore.offline.log import Ledger, TargetCounts, accounting, registered
from featurestore.offline.relations import log_relation
from featurestore.online.store import OnlineStore
from featurestore.settings import Settings
from featurestore.store import connect
from ingest.generator.ledger import read_ledger

NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Rows. A source's rows are due once in each of its views, so `due` may be a multiple of `landed`."""

    produced: int | None  # by the generator; None where it never ran
    landed: int
    dead_letters: int  # without those that were replayed; produced = landed + dead_letters, once everything has arrived
    due: int  # landed rows of each view's source, since the view is registered, and of the history it was given
    logged: int
    filtered: int
    quarantined: int
    erased: int
    pending: int  # due = logged + filtered + quarantined + erased + pending
    online: int  # logged rows that Redis lists as pushed
    newest_event_timestamp: datetime | None  # in the log


class Counter:
    """Counts again and again; what was read once is kept, so that counting costs little. Not thread-safe."""

    def __init__(self, settings: Settings, project: Project) -> None:
        # Nobody who looks wants to wait for a dead service as long as a query may take.
        database = replace(settings.database, read_timeout_s=settings.redis.timeout_s)
        self._settings, self._project = replace(settings, database=database), project
        self._zone, self._ledger = LandingZone.of(settings), Ledger()

    def read(self) -> Counts:
        """Count now.

        Raises:
            TransientError: the database service or Redis does not answer.
        """
        with connect(self._project, self._settings) as store:
            return self._count(store.database, store.online_store)

    def _count(self, database: Database, online: OnlineStore) -> Counts:
        views = self._project.feature_views
        targets = {one.target: one for one in accounting(database)}
        since = registered(database)
        applied = [targets[view.target] for view in views if view.target in targets]
        self._ledger.refresh(database)
        batches = self._zone.batches()
        removed = {source.name: self._zone.removed(source.name) for source in self._project.sources}
        due = sum(
            batch.rows
            for view in views
            for batch in batches
            if batch.source == view.source.name
            and (
                batch.created_at >= since.get(view.target, NEVER) or (batch.batch_id, view.target) in self._ledger.rows
            )
        ) + sum(
            removed[view.source.name].rows
            for view in views
            if from_micros(removed[view.source.name].until) >= since.get(view.target, NEVER)
        )
        return Counts(
            produced=self._produced(),
            landed=sum(batch.rows for batch in batches) + sum(one.rows for one in removed.values()),
            dead_letters=sum(batch.dead_rows - (batch.rows if batch.origin else 0) for batch in batches)
            + sum(one.dead_rows for one in removed.values()),
            due=due,
            logged=sum(one.logged for one in applied),
            filtered=sum(one.filtered for one in applied),
            quarantined=sum(one.quarantined for one in applied),
            erased=sum(one.erased for one in applied),
            pending=max(0, due - sum(one.rows_in for one in applied)),
            online=sum(_pushed_rows(database, online, view) for view in views if view.online_features),
            newest_event_timestamp=_newest(database, views, targets),
        )

    def _produced(self) -> int | None:
        sent = read_ledger(self._settings.data_dir).values()
        return sum(one.good + one.bad for one in sent) if sent else None


def read_counts(settings: Settings, project: Project) -> Counts:
    """Count once."""
    return Counter(settings, project).read()


@dataclass(frozen=True, slots=True)
class _Sum:
    rows: int


@dataclass(frozen=True, slots=True)
class _Newest:
    event_timestamp: datetime | None


def _pushed_rows(database: Database, online: OnlineStore, view: FeatureView) -> int:
    pushed = online.pushed(view)
    sql = (
        "SELECT coalesce(sum(logged), 0)::BIGINT AS rows FROM applied "
        "WHERE target = $target AND (commit_seq <= $position OR list_contains($above, commit_seq))"
    )
    params = {"target": view.target, "position": pushed.position, "above": sorted(pushed.above)}
    return database.query(sql, params, into=_Sum)[0].rows


def _newest(database: Database, views: tuple[FeatureView, ...], targets: Mapping[str, TargetCounts]) -> datetime | None:
    logs = [f"SELECT max(event_timestamp) AS t FROM {log_relation(view)}" for view in views if view.target in targets]
    if not logs:
        return None
    sql = f"SELECT max(t) AS event_timestamp FROM ({' UNION ALL '.join(logs)})"
    return database.query(sql, into=_Newest)[0].event_timestamp
