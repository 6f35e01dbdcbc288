"""The facts of a plan: what has landed, what the ledger has, which models are in production."""

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

import featurestore as fs
from featurestore.definitions.changes import Kind, Missing
from featurestore.models.history import BlobVersion
from featurestore.models.log import metadata_job
from featurestore.planning import make_plan
from tests.featurestore.models.examples import opaque
from tests.featurestore.shop import CLICKS, V1, V2, Shop


@pytest.fixture
def shop(tmp_path: Path) -> Generator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.database.close()


def test_the_history_of_a_new_version_is_what_has_landed(shop: Shop) -> None:
    first, second = shop.sell(1), shop.sell(2)
    shop.apply(V1, first, second)
    assert make_plan(fs.Project((V1,)), shop.zone, shop.database).changes == ()
    plan = make_plan(fs.Project((V1, V2)), shop.zone, shop.database)
    assert [(one.text, one.missing) for one in plan.changes] == [("v1 → v2: last_price", Missing(2, 2))]
    assert plan.backfill == {"spend@v1": (), "spend@v2": (first, second)}


def test_windows_that_are_online_are_no_change(shop: Shop) -> None:
    sums = fs.Aggregation("paid", "sum", "price", windows=("1h",), online=True)
    view = replace(V1, name="paying", features=[replace(V1.row_features[0], name="last_paid"), sums])
    shop.declare(V1, view)
    assert make_plan(shop.project, shop.zone, shop.database).changes == ()


def test_what_landed_since_the_registration_is_the_sensors(shop: Shop) -> None:
    first = shop.sell(1)
    shop.apply(V1, first)
    shop.declare(V1, V2)
    shop.sell(2)
    [change] = make_plan(shop.project, shop.zone, shop.database).changes
    assert (change.text, change.missing.batches) == ("v2: history is missing", 1)
    shop.apply(V2, first)
    assert make_plan(shop.project, shop.zone, shop.database).changes == ()


def test_a_model_in_production_keeps_its_version(shop: Shop) -> None:
    model = replace(opaque("pricing", "1", {"model": b"x"}), view_versions={"spend": 1})
    shop.database.append(metadata_job([BlobVersion(model, "etag", "here")]))
    shop.declare(V1, V2)
    plan = make_plan(fs.Project((V2,)), shop.zone, shop.database)
    assert [(one.kind, one.models) for one in plan.changes] == [(Kind.REFUSED, ("pricing",))]
    assert plan.errors == ["spend: pricing (production) reads version 1; keep it in the code"]


def test_daemons_have_to_learn_of_a_source_that_is_new_or_lands_otherwise(shop: Shop) -> None:
    shop.sell(1)  # with another schema version than the declared one
    other = fs.KafkaSource("views", timestamp="at", schema={"user_id": int})
    view = fs.FeatureView("seen", V1.entity, other, [fs.Feature("seen_user", int, "user_id")])
    folder = fs.AssetSource("bills", path="bills", timestamp="at", schema={"user_id": int})  # Dagster lands it
    billed = fs.FeatureView("billed", V1.entity, folder, [fs.Feature("billed_user", int, "user_id")])
    plan = make_plan(fs.Project((V1, view, billed)), shop.zone, shop.database)
    assert plan.changed_sources == (CLICKS.name, "views")
