"""What assets and checks work with; nothing connects before a run asks for it.

Addresses and secrets come from the settings that were read when the code location was loaded; they are no
configuration of a run, so they stand in no run, event or page.
"""

from collections.abc import Generator
from contextlib import closing
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from featurestore.errors import TerminalError
from featurestore.landing.batch import Batch
from featurestore.settings import Settings
from featurestore_dagster.names import Keys
from featurestore_dagster.services import (
    Blobs,
    landing_zone,
    open_blobs,
    open_database,
    open_lake,
    open_models,
    open_online,
    open_training_sets,
)

if TYPE_CHECKING:
    from featurestore.database.client import Database
    from featurestore.landing.zone import LandingZone
    from featurestore.models.production import Publishes
    from featurestore.models.publish import ModelStore
    from featurestore.offline.lake import Lake
    from featurestore.online.store import OnlineStore
    from featurestore.training.files import TrainingSetFiles

Resources = dict[str, object]


class Given:
    """The resources that a step has asked for with `required_resource_keys=keys.resources(…)`."""

    def __init__(self, context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext, keys: Keys) -> None:
        self._context, self._keys = context, keys

    @property
    def batches(self) -> "BatchSelection":
        return self._of("batches")

    @property
    def landing(self) -> "LandingZone":
        return self._of("landing")

    @property
    def database(self) -> "Database":
        return self._of("database")

    @property
    def lake(self) -> "Lake":
        return self._of("lake")

    @property
    def online(self) -> "OnlineStore":
        return self._of("online")

    @property
    def blobs(self) -> Blobs:
        return self._of("blobs")

    @property
    def models(self) -> "Publishes":
        return self._of("models")

    @property
    def training_sets(self) -> "TrainingSetFiles":
        return self._of("training_sets")

    def _of(self, name: str) -> Any:
        return getattr(self._context.resources, self._keys.name(name))


class BatchSelection(dg.ConfigurableResource):
    """Which landed batches a run works on; the sensor names them, and by default it is every batch of the hours."""

    batch_ids: list[str] = Field(default=[], description="Paths below the landing zone; empty: all of the hours.")

    def of(self, zone: "LandingZone", source: str, window: dg.TimeWindow) -> list[Batch]:
        """The selected batches of `source` that landed in the window, by landing time.

        Raises:
            TerminalError: a batch is named that has not landed, or is damaged.
        """
        if self.batch_ids:
            named = (_named(zone, batch_id) for batch_id in self.batch_ids if batch_id.startswith(f"{source}/"))
            batches = sorted(named, key=lambda batch: (batch.created_at, batch.batch_id))
        else:
            batches = zone.batches(source)
        return [batch for batch in batches if window.start <= batch.created_at < window.end]


def resources(settings: Settings, keys: Keys) -> Resources:
    """The resources of a running platform."""

    @dg.resource(description="The landed batches.")
    def landing() -> "LandingZone":
        return landing_zone(settings)

    @dg.resource(description="The log, through the database service.")
    def database() -> Generator["Database"]:
        with closing(open_database(settings)) as client:
            yield client

    @dg.resource(description="Closed days of the log, in Parquet files.")
    def lake() -> "Lake":
        return open_lake(settings)

    @dg.resource(description="The newest values, in Redis.")
    def online() -> Generator["OnlineStore"]:
        with closing(open_online(settings)) as store:
            yield store

    @dg.resource(description="The container of models, in Azure Blob Storage.")
    def blobs() -> Generator[Blobs]:
        with closing(open_blobs(settings)) as container:
            yield container

    @dg.resource(description="The models in production, in Redis.")
    def models() -> Generator["ModelStore"]:
        with closing(open_models(settings)) as store:
            yield store

    @dg.resource(description="The directory of training sets that assets make.")
    def training_sets() -> "TrainingSetFiles":
        return open_training_sets(settings)

    found: Resources = {
        "batches": BatchSelection(),
        "landing": landing,
        "database": database,
        "lake": lake,
        "online": online,
        "blobs": blobs,
        "models": models,
        "training_sets": training_sets,
    }
    return {keys.name(name): resource for name, resource in found.items()}


@lru_cache(maxsize=1_000)
def _named(zone: "LandingZone", batch_id: str) -> Batch:
    """A landed file never changes, and each step of a run asks for the same ones."""
    try:
        return zone.batch(batch_id)
    except KeyError as error:
        raise TerminalError(f"{batch_id} has not landed, or was removed") from error
