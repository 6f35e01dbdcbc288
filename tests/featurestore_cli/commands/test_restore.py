"""Backup and restore on the command line: what comes back, and what must not be left in Redis."""

import random
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from featurestore.database.embedded import EmbeddedDatabase
from featurestore.database.queues import Queues
from featurestore.online.redis_store import RedisOnlineStore
from featurestore_cli.main import main
from featurestore_cli.stack.state import Home
from tests.featurestore.recovery.test_rebuild import LATER, START, Store, digest, fill

pytestmark = pytest.mark.services


@pytest.fixture
def store(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A platform's data directory with a log, partly in the lake, and its settings in the environment."""
    home = tmp_path / "home"
    monkeypatch.setenv("FEATURESTORE_DATA_DIR", str(home))
    monkeypatch.setenv("FEATURESTORE_REDIS_URL", redis_url)
    monkeypatch.setenv("FEATURESTORE_PROJECT", "tests.featurestore.recovery.test_rebuild:PROJECT")
    store = Store(home)
    store.file = home / "database" / "features.duckdb"
    store.file.parent.mkdir(parents=True)
    fill(store, random.Random(1), 12, START)
    store.apply()
    store.move(START + timedelta(days=20))
    return store


def test_a_backup_comes_back_and_redis_is_emptied(store: Store, tmp_path: Path, redis_url: str) -> None:
    before, backup = store.digest(), str(tmp_path / "backup")
    assert main(["backup", backup]) == 0
    assert main(["backup", backup, "--verify"]) == 0
    fill(store, random.Random(2), 3, LATER)  # after the backup
    store.apply()
    with redis.Redis.from_url(redis_url) as client, closing(RedisOnlineStore(redis_url)) as online:
        online.begin()
        client.hset("fs:{user:1}", "n@1", "ahead of the backup")
        client.set("a stranger's", "key")
        client.xadd(Queues().write, {"kind": "append"})

        assert main(["restore", backup]) == 0

        assert client.keys() == [b"a stranger's"]
    with closing(EmbeddedDatabase(store.file, lake_dir=store.lake.root)) as database:
        assert digest(database) == before
    [aside] = store.lake.root.parent.glob("before-restore-*")
    assert {path.name for path in aside.iterdir()} == {"landing", "lake", "database"}


def test_a_damaged_backup_changes_nothing(store: Store, tmp_path: Path, redis_url: str) -> None:
    assert main(["backup", str(tmp_path / "backup")]) == 0
    before = store.digest()
    next((tmp_path / "backup").rglob("*.parquet")).write_bytes(b"damaged")
    with redis.Redis.from_url(redis_url) as client:
        client.hset("fs:{user:1}", "n@1", "value")
        assert main(["restore", str(tmp_path / "backup")]) == 1
        assert client.keys() == [b"fs:{user:1}"]
    assert store.digest() == before


def test_rebuild_makes_the_database_anew(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    before = store.digest()
    store.file.unlink()
    assert main(["rebuild"]) == 0
    assert "taken over from the lake" in capsys.readouterr().out
    assert store.digest() == before


@pytest.mark.parametrize("command", [["rebuild"], ["restore", "somewhere"]])
def test_not_while_the_platform_runs(store: Store, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    home = Home(store.lake.root.parent)
    home.open()
    with home.alone(lambda text: None):
        assert main(command) == 1
    assert "is running" in capsys.readouterr().err
