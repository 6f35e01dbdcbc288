"""What an earlier version wrote is read by this one."""

import gzip
import json
import shutil
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from featurestore.database.embedded import EmbeddedDatabase
from featurestore.landing.erasures import Erasures
from featurestore.landing.zone import LandingZone
from featurestore.offline.lake import Lake
from featurestore.offline.newest import newest_rows
from featurestore.online.redis_store import RedisOnlineStore
from featurestore.recovery.rebuild import rebuild
from tests.formats.state import ACTIVITY, ERASED, NOON, PROJECT, RECORDS, restore

pytestmark = pytest.mark.services

VERSIONS = sorted(path for path in Path(__file__).parent.iterdir() if path.name.isdigit())
USERS = ["1", "2", "3"]


@pytest.mark.parametrize("kept", VERSIONS, ids=lambda path: f"format {path.name}")
def test_a_kept_state_is_read(kept: Path, tmp_path: Path, redis_url: str) -> None:
    home, erased = tmp_path / "home", {ERASED} if int(kept.name) > 1 else set[str]()
    shutil.copytree(kept, home)
    file = home / "features.duckdb"
    file.write_bytes(gzip.decompress((home / "features.duckdb.gz").read_bytes()))
    zone, lake = LandingZone(home / "landing", Erasures(home / "erasures")), Lake(home / "lake")
    assert set(zone.erasures.covering("user", USERS) if zone.erasures else ()) == erased
    assert [(batch.batch_id, one.reason) for batch, one in zone.dead_letters()] == [
        ("events/gen=cluster.topic/partition=0/00000000000000000000.parquet", "no value")
    ]
    landed = [action for one in zone.batches("events") for action in zone.read(one)["action"].to_pylist()]
    assert sorted(landed) == sorted(action for user, action, _ in RECORDS if str(user) not in erased)

    newest = {"1": ("buy", 40.0), "2": ("view", None), "3": ("view", 8.0)}
    for user in erased:
        del newest[user]
    assert logged(file, lake) == newest
    with redis.Redis.from_url(redis_url, protocol=2) as client, closing(RedisOnlineStore(redis_url)) as online:
        restore(client, json.loads((home / "redis.json").read_text()))
        features = [ACTIVITY["last_action"], ACTIVITY["spend_1h"]]
        read = online.read("user", USERS, features, NOON + timedelta(minutes=1))
    assert [one["last_action"].value for one in read] == [newest.get(user, (None,))[0] for user in USERS]
    assert read[0]["spend_1h"].value == 21.5

    manifest = lake.manifest()
    assert sum(one.row_count for log in (manifest.logs if manifest else ()) for one in log.files if one.is_rows) == (
        2 if erased else 0
    )
    rebuild(PROJECT, file, zone, lake, progress=lambda *_: None)
    assert logged(file, lake) == newest


def logged(file: Path, lake: Lake) -> dict[str, tuple[str, float]]:
    """The newest values of the log; all that landed is accounted for."""
    with closing(EmbeddedDatabase(file, lake_dir=lake.root)) as database:
        [counted] = database.query_arrow("SELECT sum(rows_in) AS n, sum(quarantined) AS q FROM applied").to_pylist()
        assert (int(counted["n"]), int(counted["q"])) == (6, 1)
        newest = newest_rows(database, ACTIVITY).to_pylist()
    return {row["entity_id"]: (row["last_action"], row["double_amount"]) for row in newest}
