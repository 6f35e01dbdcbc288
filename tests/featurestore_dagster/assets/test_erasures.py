"""The asset of erasures: one that was only decided is carried out, and looked at once more when it may settle."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import dagster as dg

from featurestore.database.embedded import EmbeddedDatabase
from featurestore.landing.zone import LandingZone
from featurestore.online.memory import MemoryOnlineStore
from featurestore.recovery.erase import SETTLES_AFTER, Holdings, decide
from featurestore.settings import RedisSettings
from featurestore_dagster.assets.erasures import erasures_asset
from featurestore_dagster.assets.features import feature_assets
from featurestore_dagster.assets.raw import raw_assets, source_specs
from featurestore_dagster.partitions import key_of
from featurestore_dagster.testing import land, memory_resources
from tests.featurestore_dagster.platform import CLICKS, PROJECT
from tests.services import Redis


def test_what_was_decided_is_carried_out_and_settled(tmp_path: Path, redis_server: Redis) -> None:
    resources = memory_resources(tmp_path)
    zone = cast("LandingZone", resources["landing"])
    landed = datetime.now(UTC) - SETTLES_AFTER - timedelta(hours=2)
    rows = [{"user_id": user, "at": landed, "page": "a"} for user in (1, 2, 1)]
    batch = land(resources, CLICKS, rows, created_at=landed)
    assets = [*source_specs(PROJECT), *raw_assets(PROJECT), *feature_assets(PROJECT)]
    assert dg.materialize(assets, partition_key=key_of(batch.hour), resources=resources).success
    holdings = Holdings(
        project=PROJECT,
        zone=zone,
        database=cast("EmbeddedDatabase", None),
        lake=resources["lake"],  # type: ignore[arg-type]
        online=cast("MemoryOnlineStore", resources["online"]),
    )
    erasure = decide(holdings, PROJECT.entity("user"), "1", landed + timedelta(hours=1))  # and then it was killed
    assert erasure.entity_id == "1"

    asset = erasures_asset(PROJECT, RedisSettings(url=redis_server.url))
    for finished, settled, gone in ((1, 0, 2), (0, 1, 0), (0, 0, 0)):
        result = dg.materialize([asset], resources=resources)
        [event] = result.asset_materializations_for_node("erasures")
        found = {name: value.value for name, value in event.metadata.items()}
        assert found == {
            "erasures": 1, "finished": finished, "settled": settled, "rows": gone, "files": finished
        }  # fmt: skip
        with resources["duckdb"].get_connection() as connection:  # type: ignore[attr-defined]
            assert connection.sql("SELECT DISTINCT entity_id FROM features").fetchall() == [("2",)]
            assert connection.sql("SELECT logged, erased FROM applied").fetchall() == [(1, 2)]
        assert zone.read(batch)["user_id"].to_pylist() == [2]
