"""Training sets as assets: files with receipts, per partition, with what people look for in the metadata."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pyarrow as pa
import pytest

import featurestore as fs
from featurestore.errors import DefinitionError
from featurestore.training.build import reproduce
from featurestore.training.files import TrainingSetFiles, read_receipt, read_table
from featurestore_dagster.assets.features import feature_assets
from featurestore_dagster.assets.raw import raw_assets, source_specs
from featurestore_dagster.assets.training_sets import training_set_asset
from featurestore_dagster.features.project import PROJECT
from featurestore_dagster.features.user import CREDIT_PROFILE, PROFILES, USER_ACTIVITY, USER_EVENTS, USER_RATIOS
from featurestore_dagster.partitions import key_of
from featurestore_dagster.testing import MemoryResources, land, memory_resources

NOW = datetime.now(UTC).replace(microsecond=0)
FEATURES = [CREDIT_PROFILE["age_years"], USER_ACTIVITY["clicks_7d"], USER_RATIOS["amount_to_spend"]]
DAYS = dg.StaticPartitionsDefinition(["monday", "tues/day"])


def labels(context: dg.AssetExecutionContext) -> pl.DataFrame:
    """Two users an hour ago; on Tuesday one of them, now."""
    if context.has_partition_key and context.partition_key == "tues/day":
        return pl.DataFrame({"user_id": [2], "event_timestamp": [NOW], "amount": [1.0], "defaulted": [True]})
    at = NOW - timedelta(hours=1)
    spine = {"user_id": [1, 2], "event_timestamp": [at, at], "amount": [3.0, 4.0], "defaulted": [True, False]}
    return pl.DataFrame(spine)


@pytest.fixture
def resources(tmp_path: Path) -> MemoryResources:
    """A platform with two profiles and a few clicks."""
    found = memory_resources(tmp_path)
    profiles = [
        {
            "user_id": user,
            "as_of": NOW - timedelta(hours=2),
            "income": 2.0,
            "debt": 1.0,
            "age_years": 30 + user,
        }
        for user in (1, 2)
    ]
    clicks = [
        {"user_id": 2, "timestamp": NOW - timedelta(minutes=30 * n), "action": "click", "amount": 0.5} for n in range(4)
    ]
    landed = [land(found, PROFILES, profiles, created_at=NOW), land(found, USER_EVENTS, clicks, created_at=NOW)]
    assets = [*source_specs(PROJECT), *raw_assets(PROJECT), *feature_assets(PROJECT)]
    assert dg.materialize(assets, partition_key=key_of(landed[0].hour), resources=found).success
    return found


def materialized(
    asset: dg.AssetsDefinition, resources: MemoryResources, partition: str | None = None
) -> dg.AssetMaterialization:
    result = dg.materialize([asset], partition_key=partition, resources=resources)
    [event] = result.asset_materializations_for_node(asset.node_def.name)
    return event


def test_a_set_is_written_with_its_receipt_and_described(resources: MemoryResources) -> None:
    asset = training_set_asset("churn", PROJECT, FEATURES, spine=labels, deps=["labels"])
    event = materialized(asset, resources)
    found = {name: value.value for name, value in event.metadata.items()}
    made = read_table(Path(str(found["path"])))
    assert made.to_pylist() == [
        {"user_id": 1, "event_timestamp": NOW - timedelta(hours=1), "amount": 3.0, "defaulted": True,
         "age_years": 31, "clicks_7d": 0, "amount_to_spend": 3.0},
        {"user_id": 2, "event_timestamp": NOW - timedelta(hours=1), "amount": 4.0, "defaulted": False,
         "age_years": 32, "clicks_7d": 2, "amount_to_spend": 4.0},
    ]  # fmt: skip
    receipt = read_receipt(Path(str(found["receipt"])))
    assert (found["dagster/row_count"], found["sha256"]) == (2, receipt.sha256)
    assert found["versions"] == {"credit_profile": 1, "user_activity": 1}
    statistics = {record.data["feature"]: record.data for record in event.metadata["statistics"].records}
    assert (statistics["clicks_7d"]["count"], statistics["clicks_7d"]["max"]) == (2, "2")
    assert event.tags is not None
    assert receipt.sha256 in event.tags.values()  # the data version


def test_the_set_is_all_it_takes_to_make_it_again(resources: MemoryResources) -> None:
    event = materialized(training_set_asset("churn", PROJECT, FEATURES, spine=labels), resources)
    files = resources["training_sets"]
    assert isinstance(files, TrainingSetFiles)
    receipt = read_receipt(files.path("churn").with_suffix(".receipt.json"))
    assert receipt.spine_file == "churn.parquet"
    with dg.build_resources({"database": resources["database"]}) as built:
        again = reproduce(built.database, receipt, read_table(files.path("churn")))
    assert again.receipt.sha256 == event.metadata["sha256"].value
    assert again.table.equals(pa.table(read_table(files.path("churn"))))


def test_a_set_per_partition(resources: MemoryResources) -> None:
    asset = training_set_asset("weekly", PROJECT, FEATURES[:2], spine=labels, partitions_def=DAYS)
    paths = {
        day: Path(str(materialized(asset, resources, day).metadata["path"].value)) for day in ("monday", "tues/day")
    }
    assert [path.name for path in paths.values()] == ["monday.parquet", "tues%2Fday.parquet"]
    assert {day: read_table(path)["clicks_7d"].to_pylist() for day, path in paths.items()} == {
        "monday": [0, 2],
        "tues/day": [4],
    }


def test_it_stands_behind_the_views_and_what_the_spine_is_made_of() -> None:
    asset = training_set_asset("churn", PROJECT, [CREDIT_PROFILE, USER_RATIOS], spine=labels, deps=["labels"])
    assert asset.keys == {dg.AssetKey(["training_sets", "churn"])}
    behind = {
        dg.AssetKey("labels"),
        dg.AssetKey(["features", "credit_profile"]),
        dg.AssetKey(["features", "user_ratios"]),
    }
    assert asset.asset_deps[asset.key] == behind
    lineage = asset.metadata_by_key[asset.key]["dagster/column_lineage"].deps_by_column
    assert lineage["age_years"][0].asset_key == dg.AssetKey(["features", "credit_profile"])


def test_a_mistake_is_said_when_the_code_is_loaded() -> None:
    other = fs.FeatureView("other", CREDIT_PROFILE.entity, PROFILES, [fs.Feature("income", float)])
    with pytest.raises(DefinitionError, match="'other' version 1 is not declared"):
        training_set_asset("churn", PROJECT, [other], spine=labels)


def test_a_spine_that_cannot_be_joined_fails_with_its_reason(resources: MemoryResources) -> None:
    asset = training_set_asset("churn", PROJECT, FEATURES[:1], spine=lambda _: pa.table({"user": [1]}))
    with pytest.raises(dg.Failure, match="event_timestamp"):
        dg.materialize([asset], resources=resources)
