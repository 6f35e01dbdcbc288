"""Publication in a real Redis: the layout others rely on, the switch, large artifacts, withdrawal."""

import hashlib
import json
import random
from collections.abc import Generator

import pytest
import redis

from featurestore.errors import StoreUnavailableError, TransientError
from featurestore.models import publish
from featurestore.models.publish import ModelStore
from tests.featurestore.models.examples import opaque, promoted

pytestmark = pytest.mark.services

VERSION, BYTES = promoted()
ID = VERSION.model_id


@pytest.fixture
def store(redis_url: str) -> Generator[ModelStore]:
    one = ModelStore(redis_url)
    yield one
    one.close()


@pytest.fixture
def client(redis_url: str) -> Generator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as one:
        yield one


def test_it_is_found_as_other_services_look_for_it(store: ModelStore, client: redis.Redis) -> None:
    assert store.publish(VERSION, BYTES, 7)
    assert client.sismember("prod_models", ID)
    assert client.get(f"model:{ID}:onnx") == BYTES["model"]
    assert client.get(f"model:{ID}:scaler.onnx") == BYTES["scaler"]
    manifest = json.loads(client.get(f"model:{ID}:artifact"))
    assert (manifest["version"], manifest["generation"]) == ("1", 7)
    digests = {one["key"]: one["sha256"] for one in manifest["artifacts"]}
    assert digests["onnx"] == hashlib.sha256(client.get(f"model:{ID}:onnx")).hexdigest()
    names = {f"model:{ID}:{name}".encode() for name in ("artifact", "onnx", "scaler.onnx")}
    assert set(client.keys()) == {*names, b"prod_models"}


def test_it_is_read_whole_and_scores(store: ModelStore) -> None:
    store.publish(VERSION, BYTES, 7)
    found = store.read_model(ID)
    assert found is not None
    assert found.artifacts == BYTES
    assert found.load().score([VERSION.golden[0].inputs]) == pytest.approx([VERSION.golden[0].score], abs=1e-6)
    assert store.model_ids() == {ID}


def test_a_model_that_never_was_is_none(store: ModelStore) -> None:
    assert (store.read_model("x"), store.manifest("x"), store.model_ids()) == (None, None, frozenset())


def test_namespaces_are_apart(redis_url: str, store: ModelStore, client: redis.Redis) -> None:
    other = ModelStore(redis_url, namespace="staging")
    other.publish(VERSION, BYTES, 7)
    assert all(key.startswith(b"staging:") for key in client.keys("*"))
    assert store.read_model(ID) is None
    other.close()


def test_an_older_word_does_not_undo_a_newer_one(store: ModelStore) -> None:
    second, other = promoted("2")
    assert store.publish(second, other, 8)
    assert not store.publish(VERSION, BYTES, 7)
    assert not store.withdraw(ID, 7)
    found = store.read_model(ID)
    assert found is not None
    assert found.manifest.version == "2"


def test_what_was_withdrawn_stays_withdrawn(store: ModelStore, client: redis.Redis) -> None:
    store.publish(VERSION, BYTES, 7)
    assert store.withdraw(ID, 8)
    assert store.read_model(ID) is None
    assert client.keys("*") == [f"model:{ID}:artifact".encode()]
    assert not store.publish(VERSION, BYTES, 7)
    assert store.publish(VERSION, BYTES, 9)
    assert store.model_ids() == {ID}


def test_artifacts_of_the_version_before_go(store: ModelStore, client: redis.Redis) -> None:
    first, other = {"model": b"1", "encoder": b"2"}, {"model": b"3"}
    store.publish(opaque("m", "1", first), first, 1)
    store.publish(opaque("m", "2", other, extension="txt"), other, 2)
    assert sorted(client.keys("model:*")) == [b"model:m:artifact", b"model:m:txt"]


# ---- large artifacts


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "PLAIN_BYTES", 1_000)
    monkeypatch.setattr(publish, "CHUNK_BYTES", 400)


def large(version: str, seed: int, size: int = 10_001) -> tuple[dict[str, bytes], object]:
    data = {"model": random.Random(seed).randbytes(size), "scaler": b"small"}
    return data, opaque("m", version, data)


def test_a_large_artifact_lies_in_chunks(store: ModelStore, client: redis.Redis, small_chunks: None) -> None:
    data, version = large("1", 1)
    store.publish(version, data, 1)
    assert client.get("model:m:bin") is None
    assert client.get("model:m:scaler.bin") == b"small"
    digest = hashlib.sha256(data["model"]).hexdigest()
    keys = [f"model:m:chunk:{digest}:26:{number}" for number in range(26)]
    assert b"".join(client.mget(keys)) == data["model"]
    assert {client.ttl(key) for key in keys} == {-1}
    found = store.read_model("m")
    assert found is not None
    assert found.artifacts == data


def test_chunks_of_the_version_before_stay_for_a_while(
    store: ModelStore, client: redis.Redis, small_chunks: None
) -> None:
    first, one = large("1", 1)
    second, two = large("2", 2)
    store.publish(one, first, 1)
    store.publish(two, second, 2)
    old = hashlib.sha256(first["model"]).hexdigest()
    assert {0 < client.ttl(key) <= publish.GRACE_S for key in client.keys(f"model:m:chunk:{old}:*")} == {True}
    store.publish(one, first, 3)  # the way back: they are here to stay again
    assert {client.ttl(key) for key in client.keys(f"model:m:chunk:{old}:*")} == {-1}
    found = store.read_model("m")
    assert found is not None
    assert found.artifacts == first


def test_an_artifact_that_both_versions_have_is_never_about_to_go(
    store: ModelStore, client: redis.Redis, small_chunks: None
) -> None:
    data, one = large("1", 1)
    store.publish(one, data, 1)
    store.publish(opaque("m", "2", data), data, 2)
    assert {client.ttl(key) for key in client.keys("model:m:chunk:*")} == {-1}


def test_chunks_of_a_publication_that_broke_off_go_by_themselves(
    store: ModelStore, client: redis.Redis, small_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, version = large("1", 1)
    store.publish(opaque("m", "0", {"model": b"x"}), {"model": b"x"}, 5)
    assert not store.publish(version, data, 4)  # it comes too late, after its chunks were written
    assert {client.ttl(key) > 0 for key in client.keys("model:m:chunk:*")} == {True}


def test_what_was_lost_is_seen_and_repaired(store: ModelStore, client: redis.Redis, small_chunks: None) -> None:
    data, version = large("1", 1)
    for damage in (
        lambda: client.delete(client.keys("model:m:chunk:*")[3]),
        lambda: client.set(client.keys("model:m:chunk:*")[3], b"?" * 400),
        lambda: client.set("model:m:scaler.bin", b"smalL"),
        lambda: client.delete("model:m:scaler.bin"),
    ):
        store.publish(version, data, 1)
        assert store.is_whole("m", 1)
        damage()
        assert not store.is_whole("m", 1)
        with pytest.raises(TransientError, match=r"'m' in Redis at .* is not what its manifest names"):
            store.read_model("m")
        assert store.publish(version, data, 1)
        assert store.is_whole("m", 1)
    client.srem("prod_models", "m")
    assert not store.is_whole("m", 1)


def test_a_real_large_artifact(store: ModelStore) -> None:
    data = {"model": random.Random(1).randbytes(publish.PLAIN_BYTES + 1), "scaler": b"x" * publish.PLAIN_BYTES}
    store.publish(opaque("m", "1", data), data, 1)
    found = store.read_model("m")
    assert found is not None
    assert [one.chunks for one in found.manifest.artifacts] == [9, 0]
    assert found.artifacts == data


def test_a_redis_that_is_not_there_is_named() -> None:
    with pytest.raises(StoreUnavailableError, match=r"Redis does not answer at 127\.0\.0\.1:1"):
        ModelStore("redis://127.0.0.1:1/0").read_model("m")
