"""Versions of a view beside each other: which one is active, and who decides."""

from collections.abc import Generator
from pathlib import Path

import pytest

import featurestore as fs
from featurestore.database.jobs import ActivateJob, DropJob
from featurestore.errors import JobRefusedError
from featurestore.offline.versions import logged_versions
from featurestore.online.memory import MemoryOnlineStore
from featurestore.store import Store
from featurestore.testing.memory import MemoryStore
from featurestore.versions import ActiveVersions
from tests.featurestore.shop import CLICKS, NOW, V1, V2, V3, Shop


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
