"""The library's clients, opened for a tick or a run and closed after it.

Each is imported when it is opened: definitions are loaded without Arrow and Redis.
"""

import os
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import dagster as dg

from featurestore.errors import SettingsError
from featurestore.settings import AzureSettings, Settings

if TYPE_CHECKING:
    from featurestore.database.client import Database, QueueDatabase
    from featurestore.landing.zone import LandingZone
    from featurestore.models.history import Scan
    from featurestore.models.metadata import Artifact
    from featurestore.models.publish import ModelStore
    from featurestore.offline.lake import Lake
    from featurestore.online.redis_store import RedisOnlineStore
    from featurestore.online.store import OnlineStore
    from featurestore.training.files import TrainingSetFiles
    from featurestore_dagster.backlog import Backlog

_zones: dict[tuple[Path, AzureSettings, str], "LandingZone"] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What sensors work with. `backlog` is the process's own and outlives the tick."""

    landing: "LandingZone"
    database: "Database"
    online: "OnlineStore"
    backlog: "Backlog"


class Blobs(Protocol):
    """The container of models, as far as Dagster reads it; see featurestore.models.blobs.ModelBlobs."""

    def scan(self, model_id: str = "") -> "Scan": ...

    def download(self, artifact: "Artifact") -> bytes: ...

    def close(self) -> None: ...


# Sensors take this instead of Dagster's resources: for those, Dagster opens its own storage anew with every tick, which
# takes forty times as long as a quiet tick; and a client that cannot be made is a reason to skip, not a failed tick.
Connect = Callable[[], AbstractContextManager[Services]]


def connect(settings: Settings) -> Connect:
    """Opens the services at the addresses in `settings`; nothing connects before it is used."""

    @cache
    def backlog() -> "Backlog":
        from featurestore_dagster.backlog import Backlog

        return Backlog()

    @contextmanager
    def opened() -> Generator[Services]:
        with closing(open_database(settings)) as database, closing(open_online(settings)) as online:
            yield Services(landing=landing_zone(settings), database=database, online=online, backlog=backlog())

    return opened


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """The instance of DAGSTER_HOME, or that which `featurestore up` made. Raises SettingsError where there is none."""
    home = Path(os.environ.get("DAGSTER_HOME") or settings.dagster_home.absolute())  # noqa: TID251  # Dagster's own
    if not (home / "dagster.yaml").exists():
        raise SettingsError(f"there is no Dagster instance at {home}: set DAGSTER_HOME, or start `featurestore up`")
    return dg.DagsterInstance.from_config(str(home))


def landing_zone(settings: Settings) -> "LandingZone":
    """One per process, so that the footer of a landed file is read once."""
    from featurestore.landing.zone import LandingZone

    home = settings.data_dir.absolute()
    key = (home, settings.azure, settings.namespace)
    return _zones.get(key) or _zones.setdefault(key, LandingZone.of(replace(settings, data_dir=home)))


def open_database(settings: Settings) -> "QueueDatabase":
    from featurestore.database.client import QueueDatabase

    return QueueDatabase.of(settings)


def open_lake(settings: Settings) -> "Lake":
    from featurestore.offline.lake import Lake

    return Lake(settings.lake_dir.absolute(), after_days=settings.lake.after_days)


def open_online(settings: Settings) -> "RedisOnlineStore":
    from featurestore.online.redis_store import RedisOnlineStore

    return RedisOnlineStore(settings.redis.url, namespace=settings.namespace, timeout_s=settings.redis.timeout_s)


def open_models(settings: Settings) -> "ModelStore":
    from featurestore.models.publish import ModelStore

    return ModelStore(settings.redis.models, namespace=settings.namespace, timeout_s=settings.redis.timeout_s)


def open_blobs(settings: Settings) -> Blobs:
    """Raises SettingsError where no container is set."""
    from featurestore.models.blobs import ModelBlobs

    return ModelBlobs(settings.azure, settings.namespace)


def open_training_sets(settings: Settings) -> "TrainingSetFiles":
    from featurestore.training.files import TrainingSetFiles

    return TrainingSetFiles(settings.training_sets_dir.absolute())
