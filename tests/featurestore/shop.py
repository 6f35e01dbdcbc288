"""A small store whose declarations change: a real landing zone, the embedded database, an online store in memory."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

import featurestore as fs
from featurestore.apply import apply_batches
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.landing.batch import Batch, to_micros
from featurestore.landing.publish import Published
from featurestore.landing.schema import landed_schema
from featurestore.landing.zone import LandingZone, kafka_chain
from featurestore.offline.log import Ledger
from featurestore.offline.tables import schema_job
from featurestore.offline.versions import logged_versions
from featurestore.online.memory import MemoryOnlineStore
from featurestore.store import Store
from featurestore.versions import activate_complete

NOW = datetime.now(UTC)

USER = fs.Entity("user", key="user_id")
CLICKS = fs.KafkaSource("clicks", timestamp="at", schema={"user_id": int, "price": float})
V1 = fs.FeatureView("spend", USER, CLICKS, [fs.Feature("last_price", float, "price", online=True)])
V2 = replace(V1, features=[fs.Feature("last_price", float, "price * 100", online=True)], version=2)
V3 = replace(V1, features=[fs.Feature("last_price", float, "price * 1000", online=True)], version=3)


class Shop:
    """A store whose declarations change."""

    def __init__(self, root: Path) -> None:
        self.zone, self.database, self.online = LandingZone(root), EmbeddedDatabase(), MemoryOnlineStore()
        self.declare(V1)

    def declare(self, *views: fs.FeatureView) -> None:
        """As a reader and a sensor with this code see it."""
        self.project = fs.Project(views)
        self.database.ensure(schema_job(self.project))
        self.store = Store(self.project, self.database, self.online)

    def sell(self, price: float) -> Batch:
        """Land a batch of one row."""
        chain = kafka_chain("clicks", "c", "t", 0)
        tail = self.zone.tail(chain)
        start = tail.end if tail else 0
        at_us = to_micros(NOW) + start
        row = {"sequence": start, "event_timestamp": at_us, "user_id": 1, "price": price}
        published = self.zone.publish(
            chain, pa.Table.from_pylist([row], schema=landed_schema(CLICKS)),
            source="clicks", start=start, end=start + 1, schema_version="1", previous=tail,
        )  # fmt: skip
        assert isinstance(published, Published)
        return published.batch

    def apply(self, view: fs.FeatureView, *batches: Batch, online: bool = True) -> None:
        apply_batches(view, batches, self.zone, self.database, self.online if online else None)

    def look(self) -> list[str]:
        """What the sensor does; the versions that have become active by it."""
        ledger, before = Ledger(), self.active()
        ledger.refresh(self.database)
        activate_complete(self.project, ledger, self.database, self.online)
        return sorted(self.active() - before)

    def active(self) -> set[str]:
        return {one.target for one in logged_versions(self.database) if one.active}

    def price(self) -> object:
        """Of user 1, as whoever names the feature as text gets it a second later."""
        self.store = Store(self.project, self.database, self.online)
        [row] = self.store.online({"user_id": [1]}, [self.store.find("last_price")])
        return row["last_price"].value

    def logged(self) -> list[float]:
        """The relation `features`."""
        return sorted(self.database.query_arrow("SELECT value FROM features")["value"].to_pylist())
