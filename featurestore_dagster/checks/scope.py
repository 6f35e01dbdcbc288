"""What checks look at: the hours of the last day, and the services."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView
from featurestore.landing.batch import Batch, to_micros
from featurestore.landing.pending import Target

if TYPE_CHECKING:
    from featurestore.database.client import Database
    from featurestore.landing.zone import LandingZone
    from featurestore.offline.log import Ledger
    from featurestore.online.store import OnlineStore
    from featurestore_dagster.backlog import Backlog

LOOKS_BACK = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """One look at everything; the ledger may be a moment older than the log."""

    landed: Sequence[Batch]
    damaged: Mapping[str, Sequence[str]]  # by source: what of the landing zone cannot be believed
    ledger: "Ledger"
    targets: Sequence[Target]
    database: "Database"
    online: "OnlineStore"
    now: datetime

    @classmethod
    def of(
        cls, project: Project, landing: "LandingZone", database: "Database", online: "OnlineStore", backlog: "Backlog"
    ) -> "Scope":
        ledger = backlog.ledger(project, database)  # before the listing: what it has, has landed
        return cls(
            landed=landing.batches(),
            damaged={source.name: landing.alarms(source.name) for source in project.sources},
            ledger=ledger,
            targets=backlog.targets(),
            database=database,
            online=online,
            now=datetime.now(UTC),
        )

    @property
    def since(self) -> datetime:
        return (self.now - LOOKS_BACK).replace(minute=0, second=0, microsecond=0)

    @property
    def since_micros(self) -> int:
        """For `make_timestamp($since)` in SQL."""
        return to_micros(self.since)

    def batches(self, view: FeatureView) -> list[Batch]:
        """The batches of these hours that are the view's own."""
        [target] = [target for target in self.targets if target.name == view.target]
        start = max(self.since, target.since or self.since)
        return [batch for batch in self.landed if batch.source == view.source.name and batch.created_at >= start]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check says of one version of a view; green where there is nothing wrong."""

    wrong: tuple[str, ...]  # sentences
    counts: dict[str, int]


Examine = Callable[[FeatureView, Scope], Finding]


@dataclass(frozen=True, slots=True)
class Check:
    """A check of a view, as Dagster shows it on `key`; it looks at every declared version."""

    name: str
    key: dg.AssetKey
    description: str
    advice: str
    versions: tuple[FeatureView, ...]
    examine: Examine

    def result(self, scope: Scope) -> dg.AssetCheckResult:
        findings = {view.target: self.examine(view, scope) for view in self.versions}
        wrong = [f"{target}: {sentence}" for target, finding in findings.items() for sentence in finding.wrong]
        several = len(findings) > 1
        return dg.AssetCheckResult(
            asset_key=self.key,
            check_name=self.name,
            passed=not wrong,
            description="\n".join([*wrong, self.advice]) if wrong else None,
            metadata={
                f"{target} {name}" if several else name: count
                for target, finding in findings.items()
                for name, count in finding.counts.items()
            },
        )


def versions_by_name(views: Iterable[FeatureView]) -> dict[str, tuple[FeatureView, ...]]:
    """The declared versions of each view."""
    found: dict[str, tuple[FeatureView, ...]] = {}
    for view in views:
        found[view.name] = (*found.get(view.name, ()), view)
    return found
