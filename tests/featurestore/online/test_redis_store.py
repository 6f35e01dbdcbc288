"""What the store does with a Redis that is emptied, gone, full, a stranger's or of another version."""

import logging
import socket
import threading
from collections.abc import Generator
from datetime import timedelta

import pytest
import redis

from featurestore.errors import FormatError, SettingsError, StoreUnavailableError, TransientError
from featurestore.online.redis_store import RedisOnlineStore
from featurestore.online.values import Pushed, PutCounts, Status
from tests.featurestore.online.examples import ACTIVITY, FEATURES, NOW, order, row, table
from tests.featurestore.online.faults import way_to

pytestmark = pytest.mark.services

ROWS = table([row(str(number), order(), score=float(number), city="x") for number in range(3_000)])


@pytest.fixture
def store(redis_url: str) -> Generator[RedisOnlineStore]:
    one = RedisOnlineStore(redis_url, timeout_s=2)
    yield one
    one.close()


@pytest.fixture
def client(redis_url: str) -> Generator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as one:
        yield one


def scores(store: RedisOnlineStore) -> list[object]:
    return [one["score"].value for one in store.read("user", [str(n) for n in range(3_000)], FEATURES, NOW)]


WHOLE = [float(number) for number in range(3_000)]


# ---- what lies in Redis


def test_the_layout_is_the_documented_one(store: RedisOnlineStore, client: redis.Redis) -> None:
    store.push(ACTIVITY, ROWS.slice(7, 1), [5])
    assert sorted(client.hkeys("fs:{user:7}")) == [b"!activity@1", b"city@1", b"clicks@1", b"is_new@1", b"score@1"]
    assert client.hget("fs:{user:7}", "!activity@1") == order().to_bytes()
    assert client.object("encoding", "fs:{user:7}") in {b"ziplist", b"listpack"}
    assert client.ttl("fs:{user:7}") == -1
    assert client.hget("fs:store", "format") == b"1"
    assert [key for key in client.keys("fs:pushed:*") if not key.endswith(b":above")] == []
    store.settle(ACTIVITY, [5])
    [position] = client.keys("fs:pushed:activity@v1:*")
    assert client.get(position) == b"5"


def test_namespaces_are_apart(redis_url: str, store: RedisOnlineStore, client: redis.Redis) -> None:
    other = RedisOnlineStore(redis_url, namespace="staging")
    other.push(ACTIVITY, ROWS.slice(7, 1), [5])
    assert all(key.startswith(b"staging:fs:") for key in client.keys("*"))
    assert store.pushed(ACTIVITY) == Pushed()
    assert store.read("user", ["7"], FEATURES, NOW)[0]["score"].status is Status.MISSING
    other.close()


def test_keys_of_an_entity_lie_in_one_slot_of_a_cluster(redis_url: str, client: redis.Redis) -> None:
    for namespace in ("", "staging"):
        one = RedisOnlineStore(redis_url, namespace=namespace)
        one.push(ACTIVITY, ROWS.slice(7, 1), [])
        one.close()
    # What stands in the braces decides; a cluster is not needed to see that both names hold the same.
    assert {key.split(b"{")[1].split(b"}")[0] for key in client.keys("*{*")} == {b"user:7"}


def test_long_values_are_kept_and_counted(store: RedisOnlineStore, caplog: pytest.LogCaptureFixture) -> None:
    texts = ["x" * 59, "x" * 60, "ü" * 500]
    rows = table([row(str(number), order(), city=text) for number, text in enumerate(texts)])
    with caplog.at_level(logging.WARNING):
        assert store.push(ACTIVITY, rows, []) == PutCounts(written=3, long_values=2)
    assert "2 values of activity@v1 take more than 64 bytes" in caplog.text
    assert [one["city"].value for one in store.read("user", ["0", "1", "2"], FEATURES, NOW)] == texts


def test_damage_is_named_and_healed(store: RedisOnlineStore, client: redis.Redis) -> None:
    store.push(ACTIVITY, ROWS.slice(7, 1), [])
    good = client.hget("fs:{user:7}", "score@1")
    client.hset("fs:{user:7}", "score@1", good[:5] + b"?")
    client.hset("fs:{user:7}", "city@1", b"Z" + good[1:])
    for name in ("score", "city"):
        with pytest.raises(FormatError, match=f"feature '{name}'"):
            store.read("user", ["7"], [ACTIVITY[name]], NOW)
    client.hset("fs:{user:7}", "!activity@1", b"short")
    assert store.read("user", ["7"], FEATURES, NOW)[0]["score"].status is Status.MISSING
    store.push(ACTIVITY, ROWS.slice(7, 1), [])
    assert store.read("user", ["7"], FEATURES, NOW)[0]["score"].value == 7.0


# ---- Redis is emptied, restarted or cut off in the middle


@pytest.mark.parametrize("sent_bytes", [1, 700, 5_000, 300_000, 600_000])
def test_a_flush_in_the_middle_of_a_push_starts_it_again(redis_url: str, client: redis.Redis, sent_bytes: int) -> None:
    def emptied() -> bool:
        client.flushall()
        return False

    with way_to(redis_url) as way:
        store = RedisOnlineStore(way.url)
        way.after(sent_bytes, emptied)
        store.push(ACTIVITY, ROWS, [5])
        assert 5 in store.pushed(ACTIVITY)
        assert scores(store) == WHOLE
        store.close()


@pytest.mark.parametrize("sent_bytes", [1, 700, 5_000, 300_000, 600_000])
def test_a_broken_connection_starts_the_push_again(redis_url: str, sent_bytes: int) -> None:
    with way_to(redis_url) as way:
        store = RedisOnlineStore(way.url)
        way.after(sent_bytes, lambda: True)
        store.push(ACTIVITY, ROWS, [5])
        assert 5 in store.pushed(ACTIVITY)
        assert scores(store) == WHOLE
        store.close()


def test_a_push_that_is_flushed_each_time_lists_nothing(redis_url: str, client: redis.Redis) -> None:
    with way_to(redis_url) as way:
        store = RedisOnlineStore(way.url)

        def emptied() -> bool:
            client.flushall()
            way.after(300_000, emptied)
            return False

        way.after(300_000, emptied)
        with pytest.raises(StoreUnavailableError, match="emptied"):
            store.push(ACTIVITY, ROWS, [5])
        assert client.keys("fs:pushed:*") == []
        store.close()


def test_scripts_that_were_forgotten_are_loaded_again(redis_url: str, client: redis.Redis) -> None:
    def forget() -> bool:
        client.script_flush()
        return False

    with way_to(redis_url) as way:
        store = RedisOnlineStore(way.url)
        for sent_bytes in (3_000, 200_000, 400_000):
            way.after(sent_bytes, forget)
            store.push(ACTIVITY, ROWS, [5])
        client.script_flush()
        store.settle(ACTIVITY, [5])
        assert store.pushed(ACTIVITY).position == 5
        assert scores(store) == WHOLE
        store.close()


@pytest.mark.parametrize("idle_s", [0.0, 60.0])  # after which a connection is looked at before it is used
def test_connections_that_were_closed_meanwhile_are_replaced(
    store: RedisOnlineStore, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, idle_s: float
) -> None:
    monkeypatch.setattr("featurestore.online.connection.IDLE_S", idle_s)
    store.push(ACTIVITY, ROWS, [5])
    client.client_kill_filter(_type="normal", skipme=True)
    assert scores(store) == WHOLE


# ---- Redis is not there, or does not want to


def test_a_redis_that_is_not_there_is_named_without_its_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    store = RedisOnlineStore(f"redis://:secret@127.0.0.1:{port}/0")
    for attempt in (
        lambda: store.push(ACTIVITY, ROWS, [5]),
        lambda: store.pushed(ACTIVITY),
        lambda: store.settle(ACTIVITY, [5]),
        lambda: store.read("user", ["1"], FEATURES, NOW),
    ):
        with pytest.raises(StoreUnavailableError) as caught:
            attempt()
        assert f"127.0.0.1:{port}" in str(caught.value)
        assert "secret" not in str(caught.value)
    store.close()


def test_a_redis_that_does_not_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = RedisOnlineStore(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", timeout_s=0.2)
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            store.read("user", ["1"], FEATURES, NOW)
        store.close()


def test_a_wrong_password_is_a_wrong_setting(redis_url: str) -> None:
    store = RedisOnlineStore(redis_url.replace("://:", "://:wrong"))
    with pytest.raises(SettingsError, match="FEATURESTORE_REDIS_URL") as caught:
        store.read("user", ["1"], FEATURES, NOW)
    assert "wrong" not in str(caught.value).removeprefix("Redis").split("FEATURESTORE_REDIS_URL")[0]


def test_an_address_that_is_none_is_a_wrong_setting() -> None:
    with pytest.raises(SettingsError, match="FEATURESTORE_REDIS_URL"):
        RedisOnlineStore("http://127.0.0.1:1")


def test_a_full_redis_lists_nothing_and_may_be_tried_again(store: RedisOnlineStore, client: redis.Redis) -> None:
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 200_000)
    try:
        with pytest.raises(TransientError, match="refuses to write for now"):
            store.push(ACTIVITY, ROWS, [5])
        assert store.pushed(ACTIVITY) == Pushed()
    finally:
        client.config_set("maxmemory", 0)
    store.push(ACTIVITY, ROWS, [5])
    assert scores(store) == WHOLE
    assert 5 in store.pushed(ACTIVITY)


def test_what_a_newer_version_wrote_is_left_alone(store: RedisOnlineStore, client: redis.Redis) -> None:
    client.hset("fs:store", "format", 2)
    with pytest.raises(FormatError, match="holds format 2"):
        store.push(ACTIVITY, ROWS, [5])
    assert client.keys("fs:{*") == []


# ---- many callers


def test_threads_share_a_store(store: RedisOnlineStore) -> None:
    store.push(ACTIVITY, ROWS, [5])
    wrong: list[object] = []

    def read(first: int) -> None:
        for number in range(first, first + 200):
            [found] = store.read("user", [str(number)], FEATURES, NOW + timedelta(seconds=1))
            if found["score"].value != float(number):
                wrong.append(found)

    threads = [threading.Thread(target=read, args=(100 * n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


def test_a_closed_store_is_closed_twice_without_harm(store: RedisOnlineStore, client: redis.Redis) -> None:
    store.push(ACTIVITY, ROWS, [5])
    store.close()
    store.close()
    assert {one["name"] for one in client.client_list()} == {""}
