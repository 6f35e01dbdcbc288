"""P7: a reader sees a model whole or not at all, and never an older one after a newer one."""

import hashlib
import random
import threading
from collections.abc import Callable, Generator
from contextlib import suppress

import pytest
import redis

from featurestore.errors import TransientError
from featurestore.models import publish
from featurestore.models.publish import ModelStore
from tests.featurestore.models.examples import opaque
from tests.featurestore.online.faults import way_to

pytestmark = pytest.mark.services

GENERATIONS = 150
TYPES = ("model", "scaler", "encoder")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the model of every second version lies in chunks."""
    monkeypatch.setattr(publish, "PLAIN_BYTES", 4_000)
    monkeypatch.setattr(publish, "CHUNK_BYTES", 1_000)


@pytest.fixture
def client(redis_url: str) -> Generator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as one:
        yield one


def artifacts(generation: int) -> dict[str, bytes]:
    """Every artifact begins with its generation."""
    sizes = {"model": 3_000 + 5_000 * (generation % 2), "scaler": 10, "encoder": 2_000}
    return {kind: b"%09d" % generation + bytes(size) for kind, size in sizes.items()}


def generations(found: dict[str, bytes]) -> set[int]:
    return {int(data[:9]) for data in found.values()}


def race(publishers: list[Callable[[], None]], read: Callable[[], set[int]]) -> list[list[set[int]]]:
    """Publish and read at once; what each of three readers saw, in its order."""
    done = threading.Event()
    seen: list[list[set[int]]] = [[], [], []]

    def reader(own: list[set[int]]) -> None:
        while not done.is_set():
            own.append(read())

    readers = [threading.Thread(target=reader, args=(own,)) for own in seen]
    writers = [threading.Thread(target=publisher) for publisher in publishers]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join(60)
    done.set()
    for thread in readers:
        thread.join(60)
    return seen


def test_readers_see_whole_models_that_only_get_newer(redis_url: str) -> None:
    store, given_up = ModelStore(redis_url), list[bool]()

    def publisher(seed: int) -> None:
        """Every publisher has all generations to publish, in an order that is only roughly right."""
        dice = random.Random(seed)
        for generation in sorted(range(1, GENERATIONS + 1), key=lambda one: one + dice.randint(0, 10)):
            data = artifacts(generation)
            given_up.append(not store.publish(opaque("m", str(generation), data), data, generation))

    def read() -> set[int]:
        found = store.read_model("m")
        return set() if found is None else {found.manifest.generation, *generations(dict(found.artifacts))}

    seen = race([lambda seed=seed: publisher(seed) for seed in range(3)], read)
    store.close()
    assert [one for own in seen for one in own if len(one) > 1] == []
    for own in seen:
        numbers = [next(iter(one)) for one in own if one]
        assert numbers == sorted(numbers)
        assert len(set(numbers)) > 5  # it was a race
    assert any(given_up)
    assert read_final(redis_url) == GENERATIONS


def read_final(url: str) -> int:
    store = ModelStore(url)
    found = store.read_model("m")
    store.close()
    assert found is not None
    assert all(
        hashlib.sha256(found.artifacts[one.artifact_type]).hexdigest() == one.sha256 for one in found.manifest.artifacts
    )
    return found.manifest.generation


def test_plain_writes_and_reads_mix_versions(client: redis.Redis) -> None:
    """The negative control: a key after the other."""

    def publisher() -> None:
        for generation in range(1, GENERATIONS + 1):
            for kind, data in artifacts(generation).items():
                client.set(f"model:m:{kind}", data)

    def read() -> set[int]:
        found = {kind: client.get(f"model:m:{kind}") for kind in TYPES}
        return generations({kind: data for kind, data in found.items() if data is not None})

    seen = race([publisher], read)
    assert [one for own in seen for one in own if len(one) > 1]


def test_withdrawing_is_as_whole_as_publishing(redis_url: str, client: redis.Redis) -> None:
    store = ModelStore(redis_url)

    def publisher() -> None:
        for generation in range(1, GENERATIONS + 1):
            if generation % 3:
                data = artifacts(generation)
                store.publish(opaque("m", str(generation), data), data, generation)
            else:
                store.withdraw("m", generation)

    def read() -> set[int]:
        found = store.read_model("m")
        return set() if found is None else generations(dict(found.artifacts))

    seen = race([publisher, publisher], read)
    assert all(len(one) <= 1 for own in seen for one in own)
    assert store.read_model("m") is None  # 150 is a multiple of 3
    assert not client.sismember("prod_models", "m")
    store.close()


def test_a_publisher_that_stops_in_the_middle_leaves_the_old_version(redis_url: str, client: redis.Redis) -> None:
    """Whatever was sent when the connection broke, the model is the old one or the new one."""
    old, new = artifacts(1), artifacts(3)
    dice = random.Random(1)
    with way_to(redis_url) as way:
        outcomes = set[int]()
        for _ in range(40):
            client.flushall()
            good, cut = ModelStore(redis_url), ModelStore(way.url)
            good.publish(opaque("m", "1", old), old, 1)
            way.after(dice.randint(1, 20_000), lambda: True)
            with suppress(TransientError):
                cut.publish(opaque("m", "3", new), new, 3)
            found = good.read_model("m")
            assert found is not None
            assert len(generations(dict(found.artifacts))) == 1
            outcomes |= generations(dict(found.artifacts))
            good.close()
            cut.close()
    assert outcomes == {1, 3}


def test_a_redis_flushed_in_the_middle_of_a_publication_has_the_model_whole_after_it(
    redis_url: str, client: redis.Redis
) -> None:
    data, dice, flushed = artifacts(3), random.Random(2), list[bool]()

    def flush() -> bool:
        flushed.append(client.flushall())
        return False

    with way_to(redis_url) as way:
        store, disturbed = ModelStore(redis_url), ModelStore(way.url)
        for _ in range(40):
            way.after(dice.randint(1, 12_000), flush)
            assert disturbed.publish(opaque("m", "3", data), data, 3)
            found = store.read_model("m")
            assert found is not None
            assert generations(dict(found.artifacts)) == {3}
        store.close()
        disturbed.close()
    assert len(flushed) > 10
