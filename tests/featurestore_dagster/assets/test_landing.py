"""The landing assets: what is applied is compacted and removed when it is old, what waits is left alone."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from featurestore.definitions.project import Project
from featurestore_dagster.assets.features import feature_assets
from featurestore_dagster.assets.lake import lake_assets
from featurestore_dagster.assets.landing import landing_assets
from featurestore_dagster.assets.raw import raw_assets, source_specs
from featurestore_dagster.partitions import key_of
from featurestore_dagster.testing import land, memory_resources
from tests.featurestore_dagster.platform import CLICKS, LAST, PROJECT

DAY = timedelta(days=1)


def test_only_what_is_applied_is_compacted_and_removed(tmp_path: Path) -> None:
    resources = memory_resources(tmp_path)
    start = (datetime.now(UTC) - 30 * DAY).replace(minute=0)
    times = [start, start + timedelta(minutes=1), start + DAY, start + DAY + timedelta(minutes=1), start + 2 * DAY]
    first, *_ = [land(resources, CLICKS, [{"user_id": 1, "at": time, "page": "a"}], created_at=time) for time in times]
    kept = replace(CLICKS, keep="20d")
    project = Project((replace(LAST, source=kept),))

    def tended() -> dict[str, object]:
        result = dg.materialize(landing_assets(project), resources=resources)
        [event] = result.asset_materializations_for_node("landing__clicks")
        return {name: value.value for name, value in event.metadata.items() if value.value}

    assert tended() == {}
    assets = [*source_specs(PROJECT), *raw_assets(PROJECT), *feature_assets(PROJECT)]
    assert dg.materialize(assets, partition_key=key_of(first.hour), resources=resources).success
    assert tended() == {"compacted_hours": 1, "compacted_batches": 2}  # its rows are in DuckDB alone
    with resources["duckdb"].get_connection() as connection:  # type: ignore[attr-defined]
        before = connection.sql("FROM applied").fetchall(), connection.sql("FROM log.last_click_v1").fetchall()
    again = dg.materialize(assets, partition_key=key_of(first.hour), resources=resources)
    with resources["duckdb"].get_connection() as connection:  # type: ignore[attr-defined]
        assert (
            connection.sql("FROM applied").fetchall(),
            connection.sql("FROM log.last_click_v1").fetchall(),
        ) == before
    [log] = again.asset_materializations_for_node("apply_last_click")[:1]
    assert (log.metadata["rows_in"].value, log.metadata["skipped_batches"].value) == (2, 2)
    assert dg.materialize(lake_assets(PROJECT), resources=resources).success
    assert tended() == {"removed_batches": 2, "removed_rows": 2}  # the second hour waits, the last file stays
    assert dg.materialize(assets, partition_key=key_of(first.hour + DAY), resources=resources).success
    project = PROJECT
    assert tended() == {"compacted_hours": 1, "compacted_batches": 2}
