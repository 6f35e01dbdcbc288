"""Versions of a view beside each other: which one is active, and who decides."""

from collections.abc import Generator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

import featurestore as fs
from featurestore.apply import apply_batches
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.database.jobs import ActivateJob, DropJob
from featurestore.errors import JobRefusedError
from featurestore.landing.batch import Batch, landed_schema, to_micros
from featurestore.landing.publish import Published
from featurestore.landing.zone import LandingZone, kafka_chain
from featurestore.offline.log import Ledger
from featurestore.offline.tables import schema_job
from featurestore.offline.versions import logged_versions
from featurestore.online.memory import MemoryOnlineStore
from featurestore.store import Store
from featurestore.testing.memory import MemoryStore
from featurestore.versions import ActiveVersions, activate_complete

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


@pytest.fixture
def shop(tmp_path: Path) -> Generator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.database.close()


def test_a_version_becomes_active_when_it_has_every_batch_of_the_old_one(shop: Shop) -> None:
    first, second = shop.sell(1), shop.sell(2)
    shop.apply(V1, first, second)
    shop.declare(V1, V2)
    shop.apply(V2, second)  # what landed since; the older one is a backfill
    assert shop.look() == []
    assert (shop.price(), shop.logged()) == (2, [1, 2])
    shop.apply(V2, first)
    assert shop.look() == ["spend@v2"]
    assert (shop.price(), shop.logged()) == (200, [100, 200])
    assert shop.look() == []


def test_not_before_the_online_store_lists_all_of_it(shop: Shop) -> None:
    batch = shop.sell(1)
    shop.apply(V1, batch)
    shop.declare(V1, V2)
    shop.apply(V2, batch, online=False)  # a crash between the log and Redis
    assert shop.look() == []
    shop.apply(V2, batch)
    assert shop.look() == ["spend@v2"]


def test_the_database_looks_for_itself(shop: Shop) -> None:
    """Between the look at the ledger and the activation, the active version may get another batch."""
    shop.declare(V1, V2)
    shop.apply(V1, shop.sell(1))
    with pytest.raises(JobRefusedError, match="spend@v2 lacks 1 batches that the active version has"):
        shop.database.ensure(ActivateJob("by itself", "spend@v2", by_hand=False))
    assert shop.price() == 1


def test_going_back_is_one_call_and_stays(shop: Shop) -> None:
    shop.declare(V1, V2)
    assert shop.look() == ["spend@v2"]  # nothing has landed: there is nothing that it lacks
    batch = shop.sell(1)
    shop.apply(V1, batch)
    shop.apply(V2, batch)
    assert shop.price() == 100
    shop.store.activate("spend", 1)
    assert (shop.look(), shop.price(), shop.logged()) == ([], 1, [1])
    shop.declare(V1, V2, V3)  # a new version is a new intention
    shop.apply(V3, batch)
    assert (shop.look(), shop.price()) == (["spend@v3"], 1000)


def test_a_choice_by_hand_may_be_incomplete_and_names_what_is_there(shop: Shop) -> None:
    shop.apply(V1, shop.sell(1))
    shop.declare(V1, V2)
    shop.store.activate("spend", 2)
    assert shop.price() is None
    with pytest.raises(JobRefusedError, match="'spend@v9' is not registered"):
        shop.store.activate("spend", 9)


def test_a_version_that_replaces_another_in_the_code_becomes_active_too(shop: Shop) -> None:
    first = shop.sell(1)
    shop.apply(V1, first)
    shop.declare(V2)
    shop.apply(V2, shop.sell(2))
    assert (shop.look(), shop.logged()) == ([], [1])
    shop.apply(V2, first)
    assert (shop.look(), shop.logged()) == (["spend@v2"], [100, 200])


def test_references_and_models_keep_their_version(shop: Shop) -> None:
    model = fs.Model("m", [V1["last_price"]])
    shop.declare(V1, V2)
    batch = shop.sell(1)
    for view in (V1, V2):
        shop.apply(view, batch)
        vectors = Store(fs.Project((V1, V2), (model,)), shop.database, shop.online).vectors(model, {"user_id": [1]})
        assert vectors == [[1]]
    assert shop.look() == ["spend@v2"]
    [row] = shop.store.online({"user_id": [1]}, [V1])
    assert (row["last_price"].value, shop.price()) == (1, 100)


def test_an_online_store_that_was_emptied_is_told_again(shop: Shop) -> None:
    shop.declare(V1, V2)
    shop.look()
    batch = shop.sell(1)
    shop.apply(V1, batch)
    shop.apply(V2, batch)
    shop.online = MemoryOnlineStore()
    assert shop.price() is None  # of version 2, asked of the database: nothing was pushed again yet
    assert shop.online.active() == {}
    shop.look()
    assert shop.online.active() == {"spend": 2}


def test_a_reader_asks_at_most_once_a_second(shop: Shop) -> None:
    shop.declare(V1, V2)
    shop.look()
    clock = [0.0]
    active = ActiveVersions(shop.project, shop.database, shop.online, clock=lambda: clock[0])
    assert active.now() == (("spend", 2),)
    shop.store.activate("spend", 1)
    clock[0] = 0.9
    assert active.now() == (("spend", 2),)
    clock[0] = 1.0
    assert active.now() == (("spend", 1),)


def test_a_reader_of_old_code_goes_on_with_what_it_knows(shop: Shop) -> None:
    shop.apply(V1, shop.sell(1))
    old = Store(fs.Project((V1,)), shop.database, shop.online)
    shop.declare(V1, V2)
    shop.store.activate("spend", 2)
    assert old.find("last_price") == V1["last_price"]


def test_a_dropped_version_is_gone_and_its_number_is_not_used_again(shop: Shop) -> None:
    shop.declare(V1, V2)
    batch = shop.sell(1)
    shop.apply(V1, batch)
    with pytest.raises(JobRefusedError, match="spend@v1 is the active version of spend; activate another first"):
        shop.database.ensure(DropJob("drop", "spend@v1"))
    shop.apply(V2, batch)
    shop.look()
    shop.database.ensure(DropJob("drop", "spend@v1"))
    assert [(one.target, one.dropped) for one in logged_versions(shop.database)] == [
        ("spend@v1", True),
        ("spend@v2", False),
    ]
    assert shop.logged() == [100]
    for attempt in (
        lambda: shop.declare(V1, V2),
        lambda: shop.apply(V1, batch),
        lambda: shop.store.activate("spend", 1),
    ):
        with pytest.raises(JobRefusedError, match="spend v1 was dropped; give spend version=3"):
            attempt()


def test_a_memory_store_activates_like_the_platform() -> None:
    store = MemoryStore(fs.Project((V1, V2)))
    store.send(CLICKS, {"user_id": 1, "at": NOW, "price": 1.0})
    [row] = store.online({"user_id": [1]}, [store.find("last_price")])
    assert row["last_price"].value == 100
