"""What the declared views would change in the store that is there: the facts for `definitions.changes`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from featurestore.database.client import Database
from featurestore.definitions.changes import Change, Known, Missing, find_changes
from featurestore.definitions.project import Project
from featurestore.definitions.source import AssetSource, Source
from featurestore.definitions.view import FeatureView
from featurestore.landing.batch import Batch
from featurestore.landing.zone import LandingZone
from featurestore.models.log import production_pins
from featurestore.offline.log import Ledger
from featurestore.offline.versions import LoggedVersion, logged_versions


@dataclass(frozen=True, slots=True)
class Plan:
    """What `apply` has to do; `backfill` holds the batches that no sensor brings, by target."""

    changes: tuple[Change, ...]
    backfill: Mapping[str, tuple[Batch, ...]]
    changed_sources: tuple[str, ...]  # which the ingest daemons do not know, or know with another schema

    @property
    def errors(self) -> list[str]:
        return [change.error for change in self.changes if change.error]


def make_plan(project: Project, zone: LandingZone, database: Database) -> Plan:
    """Compare the project with the log and the landing zone; changes nothing.

    Raises:
        TransientError: the database does not answer.
    """
    versions = logged_versions(database)
    ledger = Ledger()
    ledger.refresh(database)
    registered_at = {one.target: one.registered_at for one in versions}
    backfill = {
        view.target: tuple(_missing(view, zone, ledger, registered_at.get(view.target)))
        for view in project.feature_views
    }
    missing = {
        target: Missing(len(batches), sum(batch.rows for batch in batches)) for target, batches in backfill.items()
    }
    changes = find_changes(project, [_known(one) for one in versions], missing, production_pins(database))
    return Plan(tuple(changes), backfill, tuple(_changed_sources(project, zone, versions)))


def _missing(view: FeatureView, zone: LandingZone, ledger: Ledger, registered_at: datetime | None) -> Iterable[Batch]:
    """The batches that landed before the version was registered (all, if it is not) and are not in its ledger."""
    for batch in zone.batches(view.source.name):
        is_old = registered_at is None or batch.created_at < registered_at
        if is_old and (batch.batch_id, view.target) not in ledger.rows:
            yield batch


def _known(one: LoggedVersion) -> Known:
    features = one.row_features
    return Known(
        one.view,
        one.version,
        one.digest,
        features=frozenset(feature.name for feature in features),
        online=frozenset(feature.name for feature in features if feature.online),
        dropped=one.dropped,
    )


def _changed_sources(project: Project, zone: LandingZone, versions: Iterable[LoggedVersion]) -> Iterable[str]:
    """A daemon reads the declared schemas when it starts: a source that is new, or lands with another schema."""
    known = {one.source for one in versions}
    for source in project.sources:
        is_ingested = not isinstance(source, AssetSource)  # Dagster lands those
        if is_ingested and (source.name not in known or _landed_otherwise(source, zone)):
            yield source.name


def _landed_otherwise(source: Source, zone: LandingZone) -> bool:
    batches = zone.batches(source.name)
    return bool(batches) and batches[-1].schema_version != source.schema_version
