"""What Redis serves is what the log says, on a sample of entities."""

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg

from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView
from featurestore.offline.newest import recent_entity_ids
from featurestore.online.memory import MemoryOnlineStore
from featurestore_dagster.assets.online import fill
from featurestore_dagster.checks.scope import Check, Finding, Scope, definitions_of, versions_by_name
from featurestore_dagster.names import PLAIN, Keys

SAMPLE = 100
LOOKS = 3  # a value that is on its way differs once


def parity(project: Project, keys: Keys = PLAIN) -> list[dg.AssetChecksDefinition]:
    return definitions_of(parity_checks(project, keys), project)


def parity_checks(project: Project, keys: Keys = PLAIN) -> list[Check]:
    online = versions_by_name(view for view in project.feature_views if view.online_features)
    return [
        Check(
            name="parity",
            key=keys.online(name),
            description=f"Online values of {SAMPLE} recently updated entities are the log's: newest rows, windows.",
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
    """The entities that a store filled from the log alone would answer otherwise for."""
    now = datetime.now(UTC)
    features = [view[feature.name] for feature in view.online_features]
    served = scope.online.read(view.entity.name, entity_ids, features, now)  # before the log, which may only be ahead
    filled = MemoryOnlineStore()
    fill(view, scope.database, filled, now=now, entity_ids=entity_ids)
    logged = filled.read(view.entity.name, entity_ids, features, now)
    # As texts, in which NaN is NaN.
    return [one for one, a, b in zip(entity_ids, served, logged, strict=True) if repr(a) != repr(b)]
