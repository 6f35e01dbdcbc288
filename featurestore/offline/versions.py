"""Which versions of views the log has, and which of them are active."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from featurestore.database.client import Database
from featurestore.database.jobs import FeatureColumn

_VERSIONS = (Path(__file__).parent / "sql" / "versions.sql").read_text()


@dataclass(frozen=True, slots=True)
class LoggedVersion:
    """A version that was ever registered; one that is not dropped has a log table."""

    target: str
    view: str
    version: int
    entity: str
    source: str
    digest: str
    features: str  # JSON
    registered_at: datetime
    active: bool
    activated_seq: int  # a commit_seq; of two choices the later one has the larger
    may_activate: bool  # by itself, when it is complete
    dropped: bool
    epoch: str  # of the database

    @property
    def row_features(self) -> tuple[FeatureColumn, ...]:
        return msgspec.json.decode(self.features, type=tuple[FeatureColumn, ...])


def logged_versions(database: Database) -> list[LoggedVersion]:
    """By view, oldest version first."""
    return database.query(_VERSIONS, into=LoggedVersion)
