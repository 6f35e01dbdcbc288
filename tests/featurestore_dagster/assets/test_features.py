"""Landed rows → the log and the online store, through Dagster."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from featurestore.definitions.entity import Entity
from featurestore.definitions.feature import Feature
from featurestore.definitions.project import Project
from featurestore.definitions.source import UploadSource
from featurestore.definitions.view import DerivedView, Expectation, FeatureView
from featurestore.landing.batch import Batch
from featurestore.online.memory import MemoryOnlineStore
from featurestore_dagster.assets.features import feature_assets
from featurestore_dagster.assets.raw import raw_assets, source_specs
from featurestore_dagster.names import Keys
from featurestore_dagster.partitions import key_of
from featurestore_dagster.runs import CAUSE, with_batches
from featurestore_dagster.testing import MemoryResources, land

NOW = datetime(2026, 11, 21, 10, 30, tzinfo=UTC)
USER = Entity("user", key="user_id")
PROFILES = UploadSource("profiles", timestamp="as_of", schema={"user_id": int, "income": float, "debt": float})
CREDIT = FeatureView(
    "credit",
    USER,
    PROFILES,
    [Feature("ratio", float, "debt / nullif(income, 0)", online=True), Feature("debt", float)],
    expect=[Expectation("income >= 0"), Expectation("debt < 1000", on_fail="warn")],
    owner="team:risk",
)
BURDEN = DerivedView("burden", inputs=[CREDIT["ratio"]], features=[Feature("high", bool, "ratio > 0.5")])
PROJECT = Project((CREDIT, BURDEN))


def profile(user_id: int, income: float, debt: float, at: datetime = NOW) -> dict[str, object]:
    return {"user_id": user_id, "as_of": at, "income": income, "debt": debt}


def run(
    resources: MemoryResources,
    instance: dg.DagsterInstance,
    batch: Batch,
    *,
    project: Project = PROJECT,
    **options: Any,
) -> dg.ExecuteInProcessResult:
    assets = [*source_specs(project), *raw_assets(project), *feature_assets(project)]
    return dg.materialize(
        assets,
        partition_key=key_of(batch.hour),
        resources=resources,
        instance=instance,
        raise_on_error=False,
        **options,
    )


def metadata_of(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> Mapping[str, Any]:
    [event] = [e for e in result.get_asset_materialization_events() if e.asset_key == key]
    return {name: value.value for name, value in event.materialization.metadata.items()}


def rows_of(resources: MemoryResources, sql: str) -> list[tuple[Any, ...]]:
    with resources["duckdb"].get_connection() as connection:  # type: ignore[attr-defined]
        return connection.execute(sql).fetchall()


def test_an_hour_is_logged_and_pushed(resources: MemoryResources, instance: dg.DagsterInstance) -> None:
    batch = land(resources, PROFILES, [profile(1, 200.0, 50.0), profile(2, 100.0, 90.0)], created_at=NOW)
    result = run(resources, instance, batch)
    assert result.success
    log = metadata_of(result, Keys().features("credit"))
    assert (log["rows_in"], log["dagster/row_count"], log["new_batches"]) == (2, 2, 1)
    assert metadata_of(result, Keys().online("credit"))["written"] == 2
    assert rows_of(resources, "SELECT entity_id, ratio FROM log.credit_v1 ORDER BY 1") == [("1", 0.25), ("2", 0.9)]
    online = resources["online"]
    assert isinstance(online, MemoryOnlineStore)
    [row] = online.read("user", ["1"], [CREDIT["ratio"]], NOW)
    assert row["ratio"].value == 0.25


def test_running_an_hour_again_changes_nothing(resources: MemoryResources, instance: dg.DagsterInstance) -> None:
    batch = land(resources, PROFILES, [profile(1, 200.0, 50.0)], created_at=NOW)
    run(resources, instance, batch)
    before = rows_of(resources, "FROM log.credit_v1"), rows_of(resources, "FROM applied")
    result = run(resources, instance, batch)
    assert (rows_of(resources, "FROM log.credit_v1"), rows_of(resources, "FROM applied")) == before
    assert metadata_of(result, Keys().features("credit"))["skipped_batches"] == 1


def test_a_run_takes_the_batches_that_it_names(resources: MemoryResources, instance: dg.DagsterInstance) -> None:
    first = land(resources, PROFILES, [profile(1, 200.0, 50.0)], created_at=NOW)
    land(resources, PROFILES, [profile(2, 200.0, 50.0)], created_at=NOW)
    assert run(resources, instance, first, run_config=with_batches([first.batch_id])).success
    assert rows_of(resources, "SELECT batch_id FROM applied") == [(first.batch_id,)]


def test_a_range_of_hours_is_one_run(resources: MemoryResources, instance: dg.DagsterInstance) -> None:
    hours = [NOW + timedelta(hours=hour) for hour in range(3)]
    batches = [land(resources, PROFILES, [profile(1, 200.0, float(n))], created_at=at) for n, at in enumerate(hours)]
    land(resources, PROFILES, [profile(1, 200.0, 9.0)], created_at=NOW + timedelta(hours=4))
    job = dg.Definitions(
        assets=[*source_specs(PROJECT), *raw_assets(PROJECT), *feature_assets(PROJECT)], resources=resources
    ).resolve_implicit_global_asset_job_def()
    tags = {
        "dagster/asset_partition_range_start": key_of(batches[0].hour),
        "dagster/asset_partition_range_end": key_of(batches[-1].hour),
    }
    result = job.execute_in_process(instance=instance, tags=tags)
    assert result.success
    assert len(result.get_asset_materialization_events()) == 3 * 3  # raw, log and online of three hours
    assert rows_of(resources, "SELECT count(*) FROM log.credit_v1") == [(3,)]


def test_rows_that_miss_an_expectation_show(resources: MemoryResources, instance: dg.DagsterInstance) -> None:
    rows = [profile(1, -1.0, 5.0), profile(2, 1.0, 5000.0), profile(3, 1.0, 1.0)]
    result = run(resources, instance, land(resources, PROFILES, rows, created_at=NOW))
    assert result.success
    log = metadata_of(result, Keys().features("credit"))
    assert (log["rows_in"], log["dagster/row_count"], log["quarantined"]) == (3, 2, 1)
    [check] = result.get_asset_check_evaluations()
    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.WARN
    told = check.description or ""
    assert "1 rows are kept apart" in told
    assert "1 rows are logged although not `debt < 1000`" in told
    assert "Mend the producer" in told
    good = run(
        resources, instance, land(resources, PROFILES, [profile(4, 1.0, 1.0)], created_at=NOW + timedelta(hours=1))
    )
    assert [check.passed for check in good.get_asset_check_evaluations()] == [True]


def test_versions_run_beside_each_other(resources: MemoryResources, instance: dg.DagsterInstance) -> None:
    second = replace(CREDIT, version=2, features=[Feature("ratio", float, "income / debt", online=True)])
    batch = land(resources, PROFILES, [profile(1, 200.0, 50.0)], created_at=NOW)
    result = run(resources, instance, batch, project=Project((CREDIT, second)))
    assert result.success
    assert rows_of(resources, "SELECT ratio FROM log.credit_v1") == [(0.25,)]
    assert rows_of(resources, "SELECT ratio FROM log.credit_v2") == [(4.0,)]
    assert metadata_of(result, Keys().features("credit"))["by_version"].records[1].data["version"] == "credit@v2"


def test_the_log_alone_leaves_the_online_step_to_be_told(
    resources: MemoryResources, instance: dg.DagsterInstance
) -> None:
    batch = land(resources, PROFILES, [profile(1, 200.0, 50.0)], created_at=NOW)
    result = run(resources, instance, batch, selection=dg.AssetSelection.assets(Keys().features("credit")))
    assert result.success
    assert [e.asset_key for e in result.get_asset_materialization_events()] == [Keys().features("credit")]


def lose_a_row(rows: pa.Table) -> pa.Table:
    return rows.slice(1)


@pytest.mark.parametrize(
    ("view", "cause"),
    [
        (replace(CREDIT, features=[Feature("ratio", float, "CAST('x' || debt AS DOUBLE)")]), "batch"),
        (replace(CREDIT, transform=lose_a_row), "batch"),
    ],
)
def test_a_failed_step_says_whose_fault_it_was(
    resources: MemoryResources, instance: dg.DagsterInstance, view: FeatureView, cause: str
) -> None:
    batch = land(resources, PROFILES, [profile(1, 200.0, 50.0)], created_at=NOW)
    result = run(resources, instance, batch, project=Project((view,)))
    assert not result.success
    [event] = result.get_failed_step_keys()
    failed = result.failure_data_for_node("apply_credit")
    assert failed is not None
    assert failed.user_failure_data is not None
    assert failed.user_failure_data.metadata[CAUSE].value == cause
    assert event == "apply_credit"


def test_changed_code_with_the_same_version_is_refused_and_blames_no_batch(
    resources: MemoryResources, instance: dg.DagsterInstance
) -> None:
    batch = land(resources, PROFILES, [profile(1, 200.0, 50.0)], created_at=NOW)
    run(resources, instance, batch)
    changed = replace(CREDIT, features=[Feature("ratio", float, "debt", online=True), Feature("debt", float)])
    failed = run(resources, instance, batch, project=Project((changed,))).failure_data_for_node("apply_credit")
    assert failed is not None
    assert failed.user_failure_data is not None
    assert failed.user_failure_data.metadata[CAUSE].value == "infrastructure"
    assert "version" in (failed.user_failure_data.description or "")


def test_a_damaged_file_stops_before_the_log(resources: MemoryResources, instance: dg.DagsterInstance) -> None:
    batch = land(resources, PROFILES, [profile(1, 200.0, 50.0)], created_at=NOW)
    path = resources["landing"].storage.root / batch.batch_id  # type: ignore[attr-defined]
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(bytes(data))
    result = run(resources, instance, batch)
    assert not result.success
    failed = result.failure_data_for_node("raw__profiles")
    assert failed is not None
    assert failed.user_failure_data is not None
    assert failed.user_failure_data.metadata[CAUSE].value == "batch"
    assert not [e for e in result.get_asset_materialization_events() if e.asset_key.path[0] == "features"]


def test_a_batch_that_has_not_landed_is_named(resources: MemoryResources, instance: dg.DagsterInstance) -> None:
    batch = land(resources, PROFILES, [profile(1, 200.0, 50.0)], created_at=NOW)
    result = run(resources, instance, batch, run_config=with_batches(["profiles/gen=a.b/partition=0/none.parquet"]))
    assert not result.success
    failed = result.failure_data_for_node("raw__profiles")
    assert failed is not None
    assert failed.user_failure_data is not None
    assert "none.parquet has not landed" in (failed.user_failure_data.description or "")


def test_the_graph_tells_the_way(resources: MemoryResources) -> None:
    assets = [*source_specs(PROJECT), *raw_assets(PROJECT), *feature_assets(PROJECT)]
    graph = dg.Definitions(assets=assets, resources=resources).resolve_asset_graph()
    keys = Keys()
    assert graph.get(keys.raw("profiles")).parent_keys == {keys.source("profiles")}
    assert graph.get(keys.features("credit")).parent_keys == {keys.raw("profiles")}
    assert graph.get(keys.online("credit")).parent_keys == {keys.features("credit")}
    assert graph.get(keys.features("burden")).parent_keys == {keys.features("credit")}
    assert graph.get(keys.features("credit")).owners == ["team:risk"]
    assert not graph.get(keys.features("burden")).is_executable
    schema = graph.get(keys.features("credit")).metadata["dagster/column_schema"]
    assert [column.name for column in schema.columns][-2:] == ["ratio", "debt"]


def test_a_views_page_leads_to_the_line_that_declares_it(resources: MemoryResources) -> None:
    graph = dg.Definitions(assets=feature_assets(PROJECT), resources=resources).resolve_asset_graph()
    for key in (Keys().features("credit"), Keys().online("credit")):
        [reference] = graph.get(key).metadata["dagster/code_references"].code_references
        assert reference.file_path == __file__
        assert '"credit"' in "".join(Path(__file__).read_text().splitlines()[reference.line_number - 1 :][:2])


def test_column_lineage_names_the_landed_columns(resources: MemoryResources) -> None:
    graph = dg.Definitions(assets=feature_assets(PROJECT), resources=resources).resolve_asset_graph()
    lineage = graph.get(Keys().features("credit")).metadata["dagster/column_lineage"].deps_by_column
    assert {dep.column_name for dep in lineage["ratio"]} == {"debt", "income"}
    assert {dep.column_name for dep in lineage["entity_id"]} == {"user_id"}
    online = graph.get(Keys().online("credit")).metadata["dagster/column_lineage"].deps_by_column
    assert online.keys() == {"ratio"}


def test_a_namespace_prefixes_every_key(resources: MemoryResources) -> None:
    keys = Keys("red")
    assets = [*source_specs(PROJECT, keys), *raw_assets(PROJECT, keys), *feature_assets(PROJECT, keys)]
    named = {keys.name(name): resource for name, resource in resources.items()}
    graph = dg.Definitions(assets=assets, resources=named).resolve_asset_graph()
    assert {key.path[0] for key in graph.get_all_asset_keys()} == {"red"}
