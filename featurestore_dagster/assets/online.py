"""The online store, filled again from the log."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import dagster as dg
from pydantic import Field

from featurestore.database.client import Database
from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView
from featurestore.errors import FeatureStoreError
from featurestore.landing.pending import Cause
from featurestore.offline.log import Ledger
from featurestore.offline.newest import newest_rows
from featurestore.offline.tiles import recent_tiles
from featurestore.online.store import OnlineStore
from featurestore.online.values import PutCounts
from featurestore_dagster.names import DATABASE_POOL, ONLINE, PLAIN, Keys
from featurestore_dagster.runs import failure

REBUILD_TAG = "featurestore/rebuild"


class Rebuild(dg.Config):
    """Which views are filled again; by default all that have online features."""

    views: list[str] = Field(default=[], description="Names of views; empty: all.")


def rebuild_key(keys: Keys = PLAIN) -> dg.AssetKey:
    return keys.online("rebuild")


def online_rebuild(project: Project, keys: Keys = PLAIN) -> dg.AssetsDefinition:
    """Fills the online store from the log: for a Redis that was lost, or replaced. Harmless at any time."""
    views = [view for view in project.feature_views if view.online_features]

    @dg.asset(
        key=rebuild_key(keys),
        deps=list(dict.fromkeys(keys.features(view.name) for view in views)),
        group_name=ONLINE,
        kinds={"redis"},
        description="Newest rows and windows of every entity, pushed from the log. Needs no flush: newer values stay.",
        pool=DATABASE_POOL,
    )
    def rebuild(
        config: Rebuild, database: dg.ResourceParam[Database], online: dg.ResourceParam[OnlineStore]
    ) -> dg.MaterializeResult:
        chosen = [view for view in views if not config.views or view.name in config.views]
        try:
            counts = {view.target: rebuild_view(view, database, online) for view in chosen}
        except FeatureStoreError as error:
            raise failure(error, Cause.INFRASTRUCTURE) from error
        return dg.MaterializeResult(metadata=_metadata(counts.items()))

    return rebuild


def rebuild_view(view: FeatureView, database: Database, online: OnlineStore) -> PutCounts:
    """Push the newest row of every entity and all tiles of windows, and list every line that they are made of.

    The lines are read before the rows: a line that is appended in between is in the rows but not listed, so that its
    own push, or the next look, lists it.
    """
    since, ledger = online.begin(), Ledger()
    ledger.refresh(database)
    lines = [row.commit_seq for row in ledger.lines(view.target)]
    counts = fill(view, database, online, now=datetime.now(UTC), since=since)
    return counts + online.push(view, newest_rows(database, view, entity_ids=()), lines, since=since)


def fill(
    view: FeatureView,
    database: Database,
    online: OnlineStore,
    *,
    now: datetime,
    entity_ids: Sequence[str] | None = None,
    since: str | None = None,
) -> PutCounts:
    """Push what reads at `now` and later can see of all entities, or of those named; list nothing as pushed."""
    rows = newest_rows(database, view, entity_ids=entity_ids)
    counts = online.push(view, rows, [], since=since)
    for tiles in recent_tiles(database, view, now=now, entity_ids=entity_ids):
        counts += online.push(view, rows.slice(0, 0), [], tiles=tiles, since=since)
    return counts


def _metadata(counts: Iterable[tuple[str, PutCounts]]) -> dict[str, dg.MetadataValue]:
    return {
        f"{target} {what}": dg.MetadataValue.int(number)
        for target, put in counts
        for what, number in (("written", put.written), ("newer already", put.stale), ("tiles", put.tiles))
    }
