"""No logged row happened after the platform knew it."""

from dataclasses import dataclass
from datetime import timedelta

from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView
from featurestore.landing.batch import MICROSECOND
from featurestore_dagster.checks.scope import Check, Finding, Scope, versions_by_name
from featurestore_dagster.names import PLAIN, Keys

TOLERATED = timedelta(minutes=5)  # as ingest does: clocks differ

_FUTURE = """
SELECT count(*) AS rows, count(*) FILTER (event_timestamp > created_at + to_microseconds($tolerated)) AS future
FROM log."{table}" WHERE created_at >= make_timestamp($since)
"""


@dataclass(frozen=True, slots=True)
class _Counts:
    rows: int
    future: int


def future_rows(project: Project, keys: Keys = PLAIN) -> list[Check]:
    return [
        Check(
            name="future_rows",
            key=keys.features(name),
            description="No row has an event time more than five minutes after it landed.",
            advice="A training set could see the future: find the clock that is wrong, a producer's or this machine's.",
            versions=versions,
            examine=examine,
        )
        for name, versions in versions_by_name(project.feature_views).items()
    ]


def examine(view: FeatureView, scope: Scope) -> Finding:
    sql = _FUTURE.format(table=f"{view.name}_v{view.version}")
    params = {"since": scope.since_micros, "tolerated": TOLERATED // MICROSECOND}
    [counts] = scope.database.query(sql, params, into=_Counts)
    wrong = (f"{counts.future} of {counts.rows} rows are from the future",) if counts.future else ()
    return Finding(wrong, {"rows": counts.rows, "future": counts.future})
