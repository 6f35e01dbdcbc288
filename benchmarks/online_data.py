"""A Redis of its own with the newest values of three views, for the benchmarks of the online store."""

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

import featurestore as fs
from featurestore.definitions.dtypes import arrow_type
from featurestore.online.redis_store import RedisOnlineStore
from tests.services import redis_process

VIEWS, FEATURES = 3, 50

USER = fs.Entity("user", key="user_id")


def _view(number: int) -> fs.FeatureView:
    names = [f"feature_{n:02d}" for n in range(FEATURES) if n % VIEWS == number]
    source = fs.KafkaSource(f"events_{number}", timestamp="at", schema={"user_id": int, **dict.fromkeys(names, float)})
    return fs.FeatureView(f"view_{number}", USER, source, [fs.Feature(name, float, online=True) for name in names])


ALL = tuple(_view(number) for number in range(VIEWS))
_SPENDING = fs.KafkaSource("spending", timestamp="at", schema={"user_id": int, "amount": float})
WINDOWS = fs.FeatureView(
    "spending_of_a_week",
    USER,
    _SPENDING,
    [fs.Aggregation(f"amount_{one}", one, "amount", windows=("7d",), online=True) for one in ("count", "sum", "max")],
)
PROJECT = fs.Project((*ALL, WINDOWS))
REFERENCE = "benchmarks.online_data:PROJECT"


def rows(view: fs.FeatureView, entities: int, *, seed: int = 0, later_s: int = 0) -> pa.Table:
    """One row for each entity; `later_s` makes them newer."""
    dice = np.random.default_rng(seed)
    now = np.datetime64(datetime.now(UTC).replace(tzinfo=None), "us") + np.timedelta64(later_s, "s")
    times = pa.array(np.full(entities, now))
    head = {
        "entity_id": pa.array([str(n) for n in range(entities)]),
        "event_timestamp": times,
        "created_at": times,
        "sequence": pa.array(np.arange(entities)),
        "tie": pa.array(np.full(entities, 7)),
    }
    values = {one.name: pa.array(dice.random(entities), arrow_type(one.dtype)) for one in view.columns}
    return pa.table({**head, **values})


def tiles(entities: int) -> pa.Table:
    """Every tile of a week of WINDOWS, for each entity."""
    [ring] = WINDOWS.rings
    newest = int(datetime.now(UTC).timestamp() * 1_000_000) // ring.hop_us
    numbers = np.tile(np.arange(newest - ring.slots + 1, newest + 1), entities)
    made = {
        "_hop_us": pa.array(np.full(len(numbers), ring.hop_us)),
        "entity_id": pa.array(np.repeat(np.arange(entities), ring.slots)).cast(pa.string()),
        "_k": pa.array(numbers),
        "_newest_us": pa.array(numbers * ring.hop_us),
        "commit_seq": pa.array(np.full(len(numbers), 1)),
    }
    return pa.table({**made, **{one.name: pa.array(numbers % 97) for one in ring.aggregations}})


@contextmanager
def redis_server() -> Generator[str]:
    """An empty Redis; yields its URL."""
    with tempfile.TemporaryDirectory() as home, redis_process(Path(home)) as service:
        yield service.url


@contextmanager
def filled_redis(entities: int) -> Generator[str]:
    """A Redis with values; yields its URL."""
    with redis_server() as url:
        store = RedisOnlineStore(url)
        for view in ALL:
            store.push(view, rows(view, entities), [])
        store.push(WINDOWS, rows(WINDOWS, 0), [], tiles=tiles(entities))
        store.close()
        yield url
