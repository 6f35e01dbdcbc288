"""Assets and Parquet folders as sources: landed once per materialization or file, with the lineage edge."""

import re
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import featurestore as fs
from featurestore.landing.zone import LandingZone
from featurestore_dagster.assets.asset_sources import asset_source_assets, files
from featurestore_dagster.names import Keys
from featurestore_dagster.sensors import asset_sources
from featurestore_dagster.testing import MemoryResources, memory_resources, memory_services

pytestmark = pytest.mark.slow

NOW = datetime.now(UTC)
USER = fs.Entity("user", key="user_id")
ORDERS = fs.AssetSource("orders", asset_key="warehouse/orders", timestamp="at", schema={"user_id": int, "price": float})


def project(source: fs.AssetSource) -> fs.Project:
    return fs.Project((fs.FeatureView("order", USER, source, [fs.Feature("last_price", float, "price")]),))


class Warehouse:
    """A code location with an asset of somebody else's, and what the feature store makes of it."""

    def __init__(self, resources: MemoryResources, instance: dg.DagsterInstance, source: fs.AssetSource) -> None:
        self.rows: Any = pl.DataFrame({"user_id": [1], "at": [NOW], "price": [5.0]})
        self.instance, self.resources, self.source = instance, resources, source

        @dg.asset(key=["warehouse", "orders"])
        def orders() -> Any:
            return self.rows

        self.sensor = asset_sources.sensors(project(source), memory_services(resources))
        self.definitions = dg.Definitions.merge(
            dg.Definitions(assets=asset_source_assets(project(source)), sensors=self.sensor, resources=resources),
            dg.Definitions(assets=[orders], jobs=[dg.define_asset_job("buy", selection=[orders])]),
        )
        self.cursor: str | None = None

    def buy(self) -> None:
        assert self.definitions.resolve_job_def("buy").execute_in_process(instance=self.instance).success

    def tick(self) -> list[dg.RunRequest]:
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        result: Any = self.sensor[0](context)
        self.cursor = result.cursor
        return list(result.run_requests)

    def land(self, config: Any = None) -> dg.ExecuteInProcessResult:
        job = self.definitions.resolve_job_def(asset_sources.JOB)
        return job.execute_in_process(instance=self.instance, run_config=config, raise_on_error=False)

    def landed(self) -> list[float]:
        zone = self.resources["landing"]
        assert isinstance(zone, LandingZone)
        return [price for one in zone.batches("orders") for price in zone.read(one)["price"].to_pylist()]


@pytest.fixture
def warehouse(tmp_path: Path) -> Generator[Warehouse]:
    with dg.instance_for_test() as instance:
        yield Warehouse(memory_resources(tmp_path), instance, ORDERS)


def test_each_materialization_lands_once(warehouse: Warehouse) -> None:
    assert warehouse.tick() == []
    warehouse.buy()
    [request] = warehouse.tick()
    for _ in range(2):  # a retry, or somebody's click, lands nothing twice
        assert warehouse.land(request.run_config).success
    assert warehouse.landed() == [5.0]
    assert warehouse.tick() == []
    warehouse.buy()  # the same rows, materialized again, are new rows
    assert len(warehouse.tick()) == 1
    assert warehouse.land().success
    assert warehouse.landed() == [5.0, 5.0]


def test_of_two_materializations_between_two_looks_the_last_is_there(warehouse: Warehouse) -> None:
    warehouse.buy()
    warehouse.rows = pa.table({"user_id": [1], "at": [NOW], "price": [6.0]})
    warehouse.buy()
    [request] = warehouse.tick()
    assert warehouse.land(request.run_config).success
    assert warehouse.landed() == [6.0]


def test_a_row_that_the_source_refuses_is_a_dead_letter(warehouse: Warehouse) -> None:
    warehouse.rows = pl.DataFrame({"user_id": [1, None], "at": [NOW, NOW], "price": [5.0, 1.0]})
    warehouse.buy()
    assert warehouse.land().success
    zone = warehouse.resources["landing"]
    assert isinstance(zone, LandingZone)
    [(_, dead)] = zone.dead_letters("orders")
    assert (dead.sequence, dead.reason, warehouse.landed()) == (1, "user_id: missing", [5.0])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"user_id": 1}], "gives a list; give an Arrow table"),
        (pl.DataFrame({"user_id": [1], "at": [NOW]}), "column 'price' is missing"),
        (
            pl.DataFrame({"user_id": ["x"], "at": [NOW], "price": [1.0]}),
            "user_id is .*string.*, and not all of it int64",
        ),
        (pl.DataFrame({"user_id": [1], "at": [NOW.replace(tzinfo=None)], "price": [1.0]}), "at has no time zone"),
    ],
)
def test_what_is_not_the_sources_rows_lands_nothing_and_says_why(warehouse: Warehouse, rows: Any, message: str) -> None:
    warehouse.rows = rows
    warehouse.buy()
    result = warehouse.land()
    assert (result.success, warehouse.landed()) == (False, [])
    [failed] = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert failed is not None
    assert failed.user_failure_data is not None
    assert re.search(message, failed.user_failure_data.description or "")


def test_each_file_of_a_folder_lands_once(tmp_path: Path) -> None:
    folder = tmp_path / "orders"
    folder.mkdir()
    source = fs.AssetSource("orders", path=str(folder), timestamp="at", schema={"user_id": int, "price": float})
    with dg.instance_for_test() as instance:
        warehouse = Warehouse(memory_resources(tmp_path / "state"), instance, source)
        assert warehouse.tick() == []
        for number, price in enumerate((1.0, 2.0)):
            rows = pa.table({"user_id": [1], "at": [NOW - timedelta(hours=1)], "price": [price]})
            pq.write_table(rows, folder / f"{number}.parquet")
            assert len(warehouse.tick()) == 1
            assert warehouse.land().success
            assert warehouse.tick() == []
        assert sorted(warehouse.landed()) == [1.0, 2.0]


def test_a_file_that_is_none_or_changes_meanwhile_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "orders"
    folder.mkdir()
    source = fs.AssetSource("orders", path=str(folder), timestamp="at", schema={"user_id": int, "price": float})

    def write(name: str, price: float) -> None:
        pq.write_table(pa.table({"user_id": [1], "at": [NOW], "price": [price]}), folder / name)

    (folder / "a.parquet").write_bytes(b"half of a file")
    write("b.parquet", 1.0)
    with dg.instance_for_test() as instance:
        warehouse = Warehouse(memory_resources(tmp_path / "state"), instance, source)
        [first] = warehouse.tick()
        assert not warehouse.land().success
        assert warehouse.landed() == [1.0]
        write("a.parquet", 2.0)
        [second] = warehouse.tick()
        assert second.run_key != first.run_key
        listed = list(files(source))
        write("a.parquet", 30.0)  # between the list and the look
        monkeypatch.setattr("featurestore_dagster.steps.asset_sources.files", lambda _: iter(listed))
        assert not warehouse.land().success
        assert warehouse.landed() == [1.0]
        monkeypatch.undo()
        assert warehouse.land().success
        assert warehouse.landed() == [1.0, 30.0]


def test_the_asset_is_upstream_of_the_features(warehouse: Warehouse) -> None:
    graph = warehouse.definitions.resolve_asset_graph()
    assert graph.get(Keys().source("orders")).parent_keys == {dg.AssetKey(["warehouse", "orders"])}


def test_a_source_names_its_asset_or_folder() -> None:
    with pytest.raises(fs.DefinitionError, match="source 'orders': name the asset"):
        fs.AssetSource("orders", timestamp="at", schema={"user_id": int})
