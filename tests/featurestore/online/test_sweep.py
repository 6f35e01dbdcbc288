"""Values that the log lacks are taken away, and only those."""

from collections.abc import Generator, Sequence

import pyarrow as pa
import pytest
import redis

from featurestore.entity_id import WHOLE
from featurestore.errors import StoreUnavailableError
from featurestore.online.memory import MemoryOnlineStore
from featurestore.online.redis_store import RedisOnlineStore
from featurestore.online.store import OnlineStore
from featurestore.online.sweep import ghosts, sweep, sweep_windows
from featurestore.online.values import Status
from tests.featurestore.online.examples import (
    ACTIVITY,
    FEATURES,
    NOW,
    VISITS,
    order,
    row,
    table,
    tiles_of,
    view,
    visits_view,
)
from tests.services import Redis, redis_process


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.services)])
def store(request: pytest.FixtureRequest) -> Generator[OnlineStore]:
    redis_url = request.getfixturevalue("redis_url") if request.param == "redis" else ""
    one: OnlineStore = RedisOnlineStore(redis_url) if redis_url else MemoryOnlineStore()
    yield one
    one.close()


def score(store: OnlineStore, entity_id: str) -> object:
    [found] = store.read("user", [entity_id], FEATURES, NOW)
    return found["score"].value if found["score"].status is Status.PRESENT else found["score"].status


def test_rows_newer_than_the_log_are_replaced_by_those_of_the_log(store: OnlineStore) -> None:
    in_log = table([row(str(n), order(n), score=float(n)) for n in range(5)])
    store.push(ACTIVITY, in_log, [1])
    lost = [row("3", order(9, batch="lost"), score=99.0), row("7", order(batch="lost"), score=7.0)]
    store.push(ACTIVITY, table(lost), [2])
    other = view(version=2)
    store.push(other, table([row("7", order(), score=2.0)]), [1])
    assert sweep(store, ACTIVITY, lambda _: in_log) == 2
    assert [score(store, str(n)) for n in (0, 3, 4, 7)] == [0.0, 3.0, 4.0, Status.MISSING]
    [found] = store.read("user", ["7"], [other["score"]], NOW)
    assert found["score"].value == 2.0  # another version is another row
    assert sweep(store, ACTIVITY, lambda _: in_log) == 0


def test_a_row_that_the_log_has_meanwhile_outrun_is_left_to_its_push(store: OnlineStore) -> None:
    store.push(ACTIVITY, table([row("1", order(1), score=1.0)]), [])
    newer = table([row("1", order(2), score=2.0)])
    assert sweep(store, ACTIVITY, lambda _: newer) == 0
    assert score(store, "1") == 1.0


def test_a_push_in_the_middle_of_a_sweep_stays(store: OnlineStore) -> None:
    store.push(ACTIVITY, table([row("1", order(1), score=1.0)]), [])

    def newest(_: Sequence[str]) -> pa.Table:
        store.push(ACTIVITY, table([row("1", order(5), score=5.0)]), [])  # after the orders were read
        return table([])

    assert sweep(store, ACTIVITY, newest) == 0
    assert score(store, "1") == 5.0


def test_many_entities_are_swept_in_pieces(store: OnlineStore) -> None:
    rows = table([row(str(n), order(), score=float(n)) for n in range(3_500)])
    store.push(ACTIVITY, rows, [])
    kept = rows.slice(0, 3_000)
    assert sweep(store, ACTIVITY, lambda _: kept) == 500
    assert sum(len(piece) for piece in store.stored(ACTIVITY)) == 3_000


def test_ghosts_are_found_by_the_total_order() -> None:
    rows = table([row("1", order(1, 1, 1), score=1.0), row("2", order(1, 1, 1), score=1.0)])
    memory = MemoryOnlineStore()
    memory.push(ACTIVITY, table([row("1", order(1, 1, 2)), row("2", order(1, 1, 1)), row("3", order())]), [])
    [piece] = memory.stored(ACTIVITY)
    assert sorted(ghosts(piece, rows)) == ["1", "3"]


@pytest.mark.services
def test_an_unreadable_order_is_replaced(redis_url: str) -> None:
    store = RedisOnlineStore(redis_url)
    rows = table([row("1", order(), score=1.0)])
    store.push(ACTIVITY, rows, [])
    with redis.Redis.from_url(redis_url) as client:
        client.hset("fs:{user:1}", "!activity@1", b"damage")
    assert sweep(store, ACTIVITY, lambda _: rows) == 1
    assert score(store, "1") == 1.0
    store.close()


@pytest.mark.services
@pytest.mark.parametrize("loss", ["flush", "restart"])
def test_a_push_in_pieces_lists_nothing_after_a_loss_between_them(
    tmp_path_factory: pytest.TempPathFactory, loss: str
) -> None:
    home = tmp_path_factory.mktemp("redis")
    rows = table([row(str(n), order(), score=float(n)) for n in range(10)])
    with redis_process(home) as first:
        store = RedisOnlineStore(first.url)
        since = store.begin()
        store.push(ACTIVITY, rows.slice(0, 5), [], since=since)
        if loss == "flush":
            with redis.Redis.from_url(first.url) as client:
                client.flushall()
            refused(store, rows, since)
    if loss == "restart":
        with redis_process(home, port=port_of(first)):
            refused(store, rows, since)
    store.close()


def refused(store: RedisOnlineStore, rows: pa.Table, since: str) -> None:
    with pytest.raises(StoreUnavailableError, match="emptied"):
        store.push(ACTIVITY, rows.slice(5), [1], since=since)
    with pytest.raises(StoreUnavailableError, match="emptied"):
        store.filled(ACTIVITY, WHOLE, 1, "log", since=since)
    assert 1 not in store.pushed(ACTIVITY)


def port_of(server: Redis) -> int:
    return int(server.url.rpartition(":")[2].partition("/")[0])


# ---- windows


def counts(store: OnlineStore, *entity_ids: str) -> list[object]:
    return [one["visits_2m"].value for one in store.read("user", entity_ids, [VISITS["visits_2m"]], NOW)]


def push_visits(store: OnlineStore, snapshot: int, *visits: tuple[str, int]) -> pa.Table:
    """Push what a log of these visits (entity, second) says; returns its tiles."""
    rows = table([row(entity, order(at), score=1.0) for entity, at in visits], VISITS)
    tiles = tiles_of(VISITS, rows).drop_columns("commit_seq")
    tiles = tiles.append_column("commit_seq", pa.repeat(pa.scalar(snapshot, pa.int64()), tiles.num_rows))
    store.push(VISITS, rows, [snapshot], tiles=tiles)
    return tiles


def test_tiles_that_the_log_lacks_are_replaced_though_their_snapshot_is_newer(store: OnlineStore) -> None:
    push_visits(store, 9, ("1", -1), ("1", -1), ("1", -30), ("2", -1), ("3", -4))
    rows = [row(entity, order(at), score=1.0) for entity, at in (("1", -1), ("1", -30), ("3", -4))]
    logged = tiles_of(VISITS, table(rows, VISITS))
    assert sweep_windows(store, VISITS, lambda _: [logged]) == 4  # of 1 and 2, in two rings each
    assert counts(store, "1", "2", "3") == [2, 0, 1]
    assert sweep_windows(store, VISITS, lambda _: [logged]) == 0


def test_a_push_in_the_middle_of_a_sweep_of_windows_stays(store: OnlineStore) -> None:
    before = push_visits(store, 1, ("1", -1))

    def tiles(_: Sequence[str]) -> list[pa.Table]:
        push_visits(store, 2, ("1", -1), ("1", -1))  # after the rings were read
        return [before.filter(pa.compute.field("_k") < 0)]  # type: ignore[attr-defined]

    assert sweep_windows(store, VISITS, tiles) == 0
    assert counts(store, "1") == [2]


def test_rings_of_other_windows_are_dropped(store: OnlineStore) -> None:
    push_visits(store, 1, ("1", -1), ("}:w:visits@1:", -1))
    none = visits_view("nothing")
    assert none.rings == ()
    assert sweep_windows(store, none, lambda _: []) == 4
    assert [ring for piece in store.rings(VISITS) for ring in piece if ring.fields] == []
    assert len([one for piece in store.stored(VISITS) for one in piece]) == 2  # whatever an entity is called
