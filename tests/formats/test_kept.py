"""What an earlier version wrote is read by this one."""

import gzip
import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from featurestore.database.embedded import EmbeddedDatabase
from featurestore.landing.zone import LandingZone
from featurestore.offline.newest import newest_rows
from featurestore.online.redis_store import RedisOnlineStore
from tests.formats.state import ACTIVITY, NOON, RECORDS, restore

pytestmark = pytest.mark.services

VERSIONS = sorted(path for path in Path(__file__).parent.iterdir() if path.name.isdigit())


@pytest.mark.parametrize("kept", VERSIONS, ids=lambda path: f"format {path.name}")
def test_a_kept_state_is_read(kept: Path, tmp_path: Path, redis_url: str) -> None:
    shutil.copytree(kept / "landing", tmp_path / "landing")
    (tmp_path / "kept.duckdb").write_bytes(gzip.decompress((kept / "features.duckdb.gz").read_bytes()))
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        restore(client, json.loads((kept / "redis.json").read_text()))
        zone, database = LandingZone(tmp_path / "landing"), EmbeddedDatabase(tmp_path / "kept.duckdb")
        online = RedisOnlineStore(redis_url)

        batches = zone.batches("events")
        assert sorted(action for one in batches for action in zone.read(one)["action"].to_pylist()) == sorted(
            action for _, action, _ in RECORDS
        )
        assert [(batch.batch_id, one.reason) for batch, one in zone.dead_letters()] == [
            ("events/gen=cluster.topic/partition=0/00000000000000000000.parquet", "no value")
        ]
        newest = newest_rows(database, ACTIVITY).to_pylist()
        assert [(row["entity_id"], row["last_action"], row["double_amount"]) for row in newest] == [
            ("1", "buy", 40.0),
            ("2", "view", None),
            ("3", "view", 8.0),
        ]
        [counted] = database.query_arrow("SELECT sum(rows_in) AS n, sum(quarantined) AS q FROM applied").to_pylist()
        assert (int(counted["n"]), int(counted["q"])) == (6, 1)
        [read] = online.read(
            "user", ["1"], [ACTIVITY["last_action"], ACTIVITY["spend_1h"]], NOON + timedelta(minutes=1)
        )
        assert (read["last_action"].value, read["spend_1h"].value) == ("buy", 21.5)
        online.close()
        database.close()
