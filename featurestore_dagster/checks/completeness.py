"""Every landed batch of the last day is applied to every view of its source."""

from datetime import timedelta

from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView
from featurestore_dagster.checks.scope import Check, Finding, Scope, versions_by_name
from featurestore_dagster.names import PLAIN, Keys

GRACE = timedelta(minutes=5)  # what landed later may still be on its way


def completeness(project: Project, keys: Keys = PLAIN) -> list[Check]:
    return [
        Check(
            name="completeness",
            key=keys.features(name),
            description=f"Every batch that landed more than {GRACE.seconds // 60} minutes ago is in the ledger.",
            advice="See the sensor landed_batches for what waits and why, and failed runs for errors.",
            versions=versions,
            examine=examine,
        )
        for name, versions in versions_by_name(project.feature_views).items()
    ]


def examine(view: FeatureView, scope: Scope) -> Finding:
    own = scope.batches(view)
    missing = [batch for batch in own if (batch.batch_id, view.target) not in scope.ledger.rows]
    late = [batch for batch in missing if scope.now - batch.created_at > GRACE]
    wrong = [f"{one}; what landed after it waits" for one in scope.damaged[view.source.name]]
    if late:
        rows = sum(batch.rows for batch in late)
        since = late[0].created_at.strftime("%Y-%m-%d %H:%M:%S")
        wrong.append(f"{len(late)} batches with {rows} rows wait, since {since} {late[0].batch_id}")
    return Finding(tuple(wrong), {"batches": len(own), "applied": len(own) - len(missing), "late": len(late)})
