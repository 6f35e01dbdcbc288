"""Reads that are awaited, and reads from a replica."""

import asyncio
import socket
import threading
from collections.abc import Generator

import pytest
import redis

import featurestore as fs
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.errors import StoreUnavailableError
from featurestore.online.redis_store import RedisOnlineStore
from featurestore.online.store import Read
from featurestore.store import Store
from tests.featurestore.online.examples import ACTIVITY, FEATURES, NOW, order, row, table
from tests.services import Redis, eventually, redis_process

pytestmark = pytest.mark.services

ROWS = table([row(str(n), order(), score=float(n)) for n in range(300)])
READERS = 500


@pytest.fixture
def store(redis_url: str) -> Generator[RedisOnlineStore]:
    one = RedisOnlineStore(redis_url)
    one.push(ACTIVITY, ROWS, [5])
    yield one
    one.close()


async def score(store: RedisOnlineStore, entity_id: int) -> object:
    [[found]] = await store.read_all_async([Read("user", [str(entity_id)], FEATURES)], NOW)
    return found["score"].value


async def scores(store: RedisOnlineStore) -> list[object]:
    return await asyncio.gather(*(score(store, number % 300) for number in range(READERS)))


WHOLE = [float(number % 300) for number in range(READERS)]


def test_many_await_on_one_connection(store: RedisOnlineStore, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        before = client.info("stats")["total_connections_received"]
        assert asyncio.run(scores(store)) == WHOLE
        assert client.info("stats")["total_connections_received"] == before + 1


def test_each_event_loop_has_its_own(store: RedisOnlineStore) -> None:
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(asyncio.run(scores(store)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [WHOLE] * 3


def test_nothing_is_left_of_loops_that_have_ended(store: RedisOnlineStore, redis_url: str) -> None:
    def connections() -> int:
        with redis.Redis.from_url(redis_url) as client:
            return len([one for one in client.client_list() if one["name"] == "featurestore"])

    before = connections()
    for _ in range(5):
        assert asyncio.run(score(store, 1)) == 1.0
    eventually(lambda: connections() == before)
    with asyncio.Runner() as runner:
        runner.run(score(store, 1))
        [server] = [node.server for node in store._servers.topology().nodes]
        assert len(server.awaited._lines) == 1


def test_a_broken_connection_is_replaced_and_who_gives_up_harms_nobody(store: RedisOnlineStore, redis_url: str) -> None:
    async def run() -> None:
        assert await score(store, 1) == 1.0
        with redis.Redis.from_url(redis_url) as client:
            client.client_kill_filter(_type="normal", skipme=True)
        assert await scores(store) == WHOLE
        given_up = asyncio.create_task(score(store, 1))
        others = asyncio.create_task(scores(store))
        await asyncio.sleep(0)
        given_up.cancel()
        assert await others == WHOLE

    asyncio.run(run())


def test_nobody_answers(redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        hanging = RedisOnlineStore(f"redis://:secret@127.0.0.1:{port}/0", timeout_s=0.2)
        with pytest.raises(StoreUnavailableError, match=f"127.0.0.1:{port}"):
            asyncio.run(score(hanging, 1))
    refusing = RedisOnlineStore(f"redis://:secret@127.0.0.1:{port}/0")
    with pytest.raises(StoreUnavailableError, match=f"does not answer at 127.0.0.1:{port}") as caught:
        asyncio.run(score(refusing, 1))
    assert "secret" not in str(caught.value)
    wrong = RedisOnlineStore(redis_url.replace("://:", "://:wrong"))
    with pytest.raises(fs.FeatureStoreError, match="FEATURESTORE_REDIS_URL"):
        asyncio.run(score(wrong, 1))


def test_the_store_awaits_features_and_vectors(store: RedisOnlineStore) -> None:
    model = fs.Model("m", [ACTIVITY["clicks"], ACTIVITY["score"]])
    one = Store(fs.Project((ACTIVITY,), models=(model,)), EmbeddedDatabase(), store)

    async def run() -> None:
        keys = {"user_id": [7, 400]}
        assert await one.online_async(keys, [ACTIVITY], now=NOW) == one.online(keys, [ACTIVITY], now=NOW)
        assert await one.vectors_async(model, keys, now=NOW) == [[None, 7.0], [None, None]]
        assert await one.online_async({"user_id": []}, [ACTIVITY]) == []

    asyncio.run(run())


# ---- a replica


@pytest.fixture
def replicated(
    redis_server: Redis, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Generator[tuple[str, str]]:
    """A Redis that dies, and one that follows it."""
    home = tmp_path_factory.mktemp("replicated")
    with redis_process(home / "first") as first, redis_process(home / "second") as second:
        port = int(first.url.rpartition(":")[2].partition("/")[0])
        with redis.Redis.from_url(second.url) as client:
            client.config_set("masterauth", "for-tests")
            client.replicaof("127.0.0.1", port)
            pushed = RedisOnlineStore(first.url)
            pushed.push(ACTIVITY, ROWS, [5])
            pushed.close()
            eventually(lambda: client.dbsize() >= 300)
        first.child.stop()
        yield first.url, second.url


def test_a_replica_is_read_while_the_server_does_not_answer(replicated: tuple[str, str]) -> None:
    url, replica_url = replicated
    store = RedisOnlineStore(url, replica_url=replica_url)
    [found] = store.read("user", ["7"], FEATURES, NOW)
    assert found["score"].value == 7.0
    assert asyncio.run(scores(store)) == WHOLE
    with pytest.raises(StoreUnavailableError, match="does not answer"):
        store.push(ACTIVITY, ROWS, [6])  # what is written goes nowhere else
    store.close()
    alone = RedisOnlineStore(url)
    with pytest.raises(StoreUnavailableError):
        alone.read("user", ["7"], FEATURES, NOW)
