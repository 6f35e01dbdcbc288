"""`featurestore erase` beside a running platform: what is left in files and in Redis, and what is served meanwhile."""

import json
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from featurestore.apply import apply_batches
from featurestore.database.client import Database
from featurestore.entity_id import WHOLE
from featurestore.landing.batch import Batch
from featurestore.offline.tables import schema_job
from featurestore.online.memory import MemoryOnlineStore
from featurestore.online.redis_store import RedisOnlineStore
from featurestore.online.store import OnlineStore
from featurestore.recovery.erase import Holdings, settle
from featurestore.recovery.online import fill, refill
from featurestore_cli.main import main
from tests.featurestore.database.serving import client, on_a_thread, settings_for
from tests.featurestore.recovery.test_erase import NOW, OTHERS, PERSON, PROJECT, World, holds, served
from tests.services import redis_process

pytestmark = pytest.mark.services


class Running:
    """A data directory with a Redis and a database service."""

    def __init__(self, world: World, database: Database, online: OnlineStore) -> None:
        self.world, self.database, self.online = world, database, online

    def apply(self, *batches: Batch) -> None:
        for view in PROJECT.feature_views:
            own = [batch for batch in batches if batch.source == view.source.name]
            apply_batches(view, own, self.world.zone, self.database, self.online)

    def settle(self) -> None:
        world = self.world
        assert world.zone.erasures
        holdings = Holdings(
            project=PROJECT, zone=world.zone, database=self.database, lake=world.lake, online=self.online
        )
        for one in world.zone.erasures.all():
            settle(holdings, one)

    def logged(self) -> object:
        """What an online store answers that is filled from the log alone."""
        filled = MemoryOnlineStore()
        for view in PROJECT.feature_views:
            fill(view, self.database, filled, now=NOW)
        return served(filled)


@contextmanager
def running(home: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Running]:
    with redis_process(home) as server:
        settings = settings_for(home, server.url)
        for name, value in (
            ("DATA_DIR", str(home)),
            ("REDIS_URL", server.url),
            ("PROJECT", "tests.featurestore.recovery.test_erase:PROJECT"),
        ):
            monkeypatch.setenv(f"FEATURESTORE_{name}", value)
        with (
            on_a_thread(settings, schema_job(PROJECT)),
            client(settings) as database,
            closing(RedisOnlineStore(server.url)) as online,
        ):
            yield Running(World(home), database, online)


def test_nothing_is_left_in_files_or_in_redis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path, monkeypatch) as platform:
        world = platform.world
        for number in range(3):
            world.sell(NOW, (PERSON, float(number)), (OTHERS[0], 1.0), (PERSON, -1.0))
        world.upload("a", NOW, PERSON, OTHERS[0])
        platform.apply(*world.zone.batches())
        assert holds(tmp_path / "landing")  # the negative control
        assert holds(tmp_path / "redis")
        assert main(["erase", "user", str(PERSON)]) == 1  # nobody can be asked
        assert "say --yes" in capsys.readouterr().err
        assert main(["erase", "user", str(PERSON), "--yes"]) == 0
        assert "7 landed rows" in capsys.readouterr().out
        assert served(platform.online) == platform.logged()
        assert main(["get", "user", str(PERSON)]) == 1
        capsys.readouterr()
        assert main(["status", "--json"]) == 3  # `up` does not run
        counts = json.loads(capsys.readouterr().out)["counts"]
        assert (counts["landed"], counts["due"], counts["erased"], counts["pending"]) == (11, 20, 13, 0)
        for explained in (("user", str(OTHERS[0]), "last_price"), ("shop", "corner", "t_30d")):
            assert main(["explain", *explained]) == 0
            assert "same value" in capsys.readouterr().out
        assert main(["explain", "user", str(OTHERS[0]), "t_30d"]) == 1
        assert "t_30d is a feature of shop" in capsys.readouterr().out
        assert main(["erase", "user", f"0{PERSON}", "--yes"]) == 1
        assert "is not the text of one" in capsys.readouterr().err
    assert holds(tmp_path) == set()


def test_beside_pushes_and_rebuilds_the_online_store_ends_as_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, monkeypatch) as platform:
        world, begun, stop = platform.world, threading.Event(), threading.Event()

        def sell() -> None:
            """Until the erasure is over, and some more."""
            left = 3
            while left:
                left -= stop.is_set()
                now = datetime.now(UTC)
                platform.apply(world.sell(now, (PERSON, 1.0), (OTHERS[0], 2.0)), world.sell(now, (PERSON, -1.0)))
                begun.set()

        def rebuild() -> None:
            while not stop.is_set():
                for view in PROJECT.feature_views:
                    refill(view, WHOLE, platform.database, platform.online, now=datetime.now(UTC))

        with ThreadPoolExecutor() as pool:
            others = [pool.submit(sell), pool.submit(rebuild)]
            try:
                assert begun.wait(60)
                assert main(["erase", "user", str(PERSON), "--yes"]) == 0
            finally:
                stop.set()
            for one in others:
                one.result(60)
        platform.settle()
        assert served(platform.online) == platform.logged()
        assert main(["erase", "user", str(PERSON), "--yes"]) == 0
        platform.settle()
        assert served(platform.online) == platform.logged()
    assert holds(tmp_path) == set()
