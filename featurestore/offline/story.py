"""Where a value comes from: the row of the log that decides it, its batch, and when it was applied."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from featurestore.database.client import Database
from featurestore.definitions.feature import Aggregation
from featurestore.definitions.reference import FeatureOf
from featurestore.definitions.rings import ring_windows
from featurestore.definitions.view import FeatureView
from featurestore.landing.batch import Batch, to_micros
from featurestore.landing.zone import LandingZone
from featurestore.offline.relations import log_relation
from featurestore.order import ORDER_SQL

_LINE = "SELECT batch_id, applied_at FROM applied WHERE target = $target AND commit_seq = $commit_seq"


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One value's way, from the log backwards."""

    view: FeatureView
    expression: str  # of the view's definition
    rows: int  # of the log that decide the value: 1, or those that the window counts
    event_timestamp: datetime  # of the newest of them
    created_at: datetime
    sequence: int
    commit_seq: int
    batch_id: str
    applied_at: datetime
    batch: Batch | None  # None: what landed is no longer kept

    @property
    def known_after(self) -> timedelta:
        """How long after it happened it was known."""
        return self.created_at - self.event_timestamp


def story(
    database: Database, zone: LandingZone, view: FeatureView, one: FeatureOf, entity_id: str, at: datetime
) -> Story | None:
    """What decides the value of a row feature or window at a time; None where no row has arrived that does."""
    found = ring_windows(d for d in view.features if isinstance(d, Aggregation)).get(one.name)
    params: dict[str, str | int] = {"entity_id": entity_id, "at": to_micros(at)}
    counts = "true"
    if found:
        params["start"] = found.window.start(to_micros(at))
        counts = f'event_timestamp > make_timestamp($start) AND "{found.aggregation.name}" IS NOT NULL'
    sql = (
        "SELECT event_timestamp, created_at, sequence, commit_seq, count(*) OVER () AS rows "
        f"FROM {log_relation(view)} "
        f"WHERE entity_id = $entity_id AND event_timestamp <= make_timestamp($at) AND {counts} "
        f"ORDER BY {ORDER_SQL} DESC LIMIT 1"
    )
    rows = database.query(sql, params, into=_Newest)
    if not rows:
        return None
    [newest] = rows
    [line] = database.query(_LINE, {"target": view.target, "commit_seq": newest.commit_seq}, into=_Line)
    return Story(
        view=view,
        expression=_fold(found.aggregation, one.name) if found else view[one.name].feature.expression,
        rows=newest.rows if found else 1,
        event_timestamp=newest.event_timestamp.replace(tzinfo=UTC),
        created_at=newest.created_at.replace(tzinfo=UTC),
        sequence=newest.sequence,
        commit_seq=newest.commit_seq,
        batch_id=line.batch_id,
        applied_at=line.applied_at.replace(tzinfo=UTC),
        batch=_landed(zone, line.batch_id),
    )


def _fold(declared: Aggregation, name: str) -> str:
    """The aggregation as a person would say it: sum(amount) where action = 'purchase', over 7d."""
    where = "" if declared.where == "true" else f" where {declared.where}"
    return f"{declared.function}({declared.sql}){where}, over {name.removeprefix(f'{declared.name}_')}"


def _landed(zone: LandingZone, batch_id: str) -> Batch | None:
    try:
        return zone.batch(batch_id)
    except KeyError:
        return None


@dataclass(frozen=True, slots=True)
class _Newest:
    event_timestamp: datetime
    created_at: datetime
    sequence: int
    commit_seq: int
    rows: int


@dataclass(frozen=True, slots=True)
class _Line:
    batch_id: str
    applied_at: datetime
