"""What Redis serves is what the log says, on a sample of entities."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import dagster as dg

from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView
from featurestore.offline.newest import newest_rows, recent_entity_ids
from featurestore.online.values import OnlineValue
from featurestore_dagster.checks.scope import Check, Finding, Scope, versions_by_name
from featurestore_dagster.names import PLAIN, Keys

SAMPLE = 100
LOOKS = 3  # a value that is on its way differs once
_BEFORE_ALL = datetime(1970, 1, 1, tzinfo=UTC)  # read as of then, no value has expired

Row = tuple[object, ...]  # the event's time, then each value


def parity(project: Project, keys: Keys = PLAIN) -> list[dg.AssetChecksDefinition]:
    return [check.definition(project) for check in parity_checks(project, keys)]


def parity_checks(project: Project, keys: Keys = PLAIN) -> list[Check]:
    online = versions_by_name(view for view in project.feature_views if view.online_features)
    return [
        Check(
            name="parity",
            key=keys.online(name),
            description=f"Online values of {SAMPLE} recently updated entities equal the newest row of the log.",
            advice="Materialize online/rebuild; if it comes back, something else writes to this Redis.",
            versions=versions,
            examine=examine,
        )
        for name, versions in online.items()
    ]


def examine(view: FeatureView, scope: Scope) -> Finding:
    """Compare a sample; what differs is compared again, because a push may be on its way."""
    entity_ids = recent_entity_ids(scope.database, [view], SAMPLE)
    differing: Sequence[str] = entity_ids
    for _ in range(LOOKS):
        if not differing:
            break
        differing = _differing(view, scope, differing)
    wrong = (f"{len(differing)} of {len(entity_ids)} entities differ, e.g. {differing[0]}",) if differing else ()
    return Finding(wrong, {"entities": len(entity_ids), "differing": len(differing)})


def _differing(view: FeatureView, scope: Scope, entity_ids: Sequence[str]) -> list[str]:
    online = _online(view, scope, entity_ids)  # before the log, which may only be ahead of it
    logged = _logged(view, scope, entity_ids)
    return [entity_id for entity_id in entity_ids if online[entity_id] != logged.get(entity_id)]


def _online(view: FeatureView, scope: Scope, entity_ids: Sequence[str]) -> dict[str, Row]:
    features = [view[feature.name] for feature in view.online_features]
    rows = scope.online.read(view.entity.name, entity_ids, features, _BEFORE_ALL)
    return {entity_id: _row(view, row) for entity_id, row in zip(entity_ids, rows, strict=True)}


def _row(view: FeatureView, values: Mapping[str, OnlineValue]) -> Row:
    cells = [values[feature.name] for feature in view.online_features]
    return (cells[0].event_timestamp, *(cell.value for cell in cells))


def _logged(view: FeatureView, scope: Scope, entity_ids: Sequence[str]) -> dict[str, Row]:
    names = [feature.name for feature in view.online_features]
    rows = newest_rows(scope.database, view, entity_ids=entity_ids).to_pylist()
    return {
        row["entity_id"]: (row["event_timestamp"].replace(tzinfo=UTC), *(row[name] for name in names)) for row in rows
    }
