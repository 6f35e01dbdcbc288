"""What Redis serves is what the log says, on a sample of entities."""

from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView
from featurestore_dagster.checks.scope import Check, Finding, Scope, versions_by_name
from featurestore_dagster.names import PLAIN, Keys

SAMPLE = 100


def parity(project: Project, keys: Keys = PLAIN) -> list[Check]:
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
    from featurestore_dagster.steps.parity import compare

    return compare(view, scope)
