"""The lake's assets: closed days leave DuckDB, and the metadata says how much."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from featurestore_dagster.assets.features import feature_assets
from featurestore_dagster.assets.lake import lake_assets
from featurestore_dagster.assets.raw import raw_assets, source_specs
from featurestore_dagster.names import PLAIN
from featurestore_dagster.partitions import key_of
from featurestore_dagster.testing import land, memory_resources
from tests.featurestore_dagster.platform import CLICKS, PROJECT


def test_closed_days_move_and_are_counted(tmp_path: Path) -> None:
    resources = memory_resources(tmp_path)
    landed = datetime.now(UTC) - timedelta(days=30)
    batch = land(resources, CLICKS, [{"user_id": n, "at": landed, "page": "a"} for n in range(7)], created_at=landed)
    assets = [*source_specs(PROJECT), *raw_assets(PROJECT), *feature_assets(PROJECT)]
    assert dg.materialize(assets, partition_key=key_of(batch.hour), resources=resources).success

    for moved in (7, 0):
        result = dg.materialize(lake_assets(PROJECT), resources=resources)
        [event] = result.asset_materializations_for_node("move_to_lake")
        found = {name: value.value for name, value in event.metadata.items()}
        assert (found["dagster/row_count"], found["files"], found["moved_rows"]) == (7, 1, moved)
        assert event.asset_key == PLAIN.lake("last_click")
    with resources["duckdb"].get_connection() as connection:  # type: ignore[attr-defined]
        assert connection.sql("SELECT count(*) FROM features").fetchall() == [(7,)]
        assert connection.sql("SELECT count(*) FROM hot.last_click_v1").fetchall() == [(0,)]
