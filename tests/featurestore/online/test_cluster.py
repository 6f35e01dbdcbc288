"""The online store on a Redis Cluster: values by slot, lists by master, keys on the move."""

import asyncio
from collections.abc import Generator, Sequence
from datetime import timedelta

import pyarrow as pa
import pytest
from redis.crc import key_slot

import featurestore as fs
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.entity_id import Piece
from featurestore.errors import SettingsError, StoreUnavailableError, TransientError
from featurestore.offline.newest import newest_rows
from featurestore.offline.tiles import recent_tiles, touched_tiles
from featurestore.online.redis_store import RedisOnlineStore
from featurestore.online.servers import Servers
from featurestore.online.store import Read
from featurestore.online.sweep import sweep
from featurestore.online.values import Pushed, PutCounts
from featurestore.store import Store
from tests.featurestore.online.cluster import Cluster, cluster_of_three
from tests.featurestore.online.examples import ACTIVITY, FEATURES, NOW, VISITS, append, order, row, table
from tests.windows import differing

pytestmark = [pytest.mark.services, pytest.mark.slow]

ROWS = table([row(str(n), order(), score=float(n)) for n in range(300)])
IDS = [str(n) for n in range(300)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cluster]:
    with cluster_of_three(tmp_path_factory.mktemp("cluster")) as one:
        yield one


@pytest.fixture
def store(cluster: Cluster) -> Generator[RedisOnlineStore]:
    for node in cluster.nodes:
        node.flushall()
    one = RedisOnlineStore(cluster.url)
    yield one
    one.close()


def scores(store: RedisOnlineStore) -> list[object]:
    found = store.read("user", IDS, FEATURES, NOW)
    assert asyncio.run(store.read_all_async([Read("user", IDS, FEATURES)], NOW)) == [found]
    return [one["score"].value for one in found]


WHOLE = [float(n) for n in range(300)]


def test_values_lie_on_all_masters_and_newest_wins(store: RedisOnlineStore, cluster: Cluster) -> None:
    assert store.push(ACTIVITY, ROWS, [3, 5]) == PutCounts(written=300)
    assert all(node.dbsize() > 50 for node in cluster.nodes)
    assert scores(store) == WHOLE
    assert store.push(ACTIVITY, table([row("7", order(-5), score=0.0)]), [6]) == PutCounts(stale=1)
    reads = [Read("user", IDS[:2], FEATURES), Read("user", IDS[5:6], FEATURES[:1])]
    assert [len(one) for one in store.read_all(reads, NOW + timedelta(seconds=1))] == [2, 1]


def test_a_line_counts_as_pushed_when_every_master_has_it(store: RedisOnlineStore, cluster: Cluster) -> None:
    store.push(ACTIVITY, ROWS, [3, 5])
    assert store.pushed(ACTIVITY) == Pushed(0, frozenset({3, 5}))
    store.settle(ACTIVITY, [3, 4, 5])
    assert store.pushed(ACTIVITY) == Pushed(3, frozenset({5}))
    store.push(ACTIVITY, ROWS.slice(0, 0), [4])
    store.settle(ACTIVITY, [4, 5], above=3)
    assert store.pushed(ACTIVITY) == Pushed(5, frozenset())
    cluster.nodes[1].flushall()  # one master lost what it had
    assert store.pushed(ACTIVITY) == Pushed(0, frozenset())
    store.push(ACTIVITY, ROWS, [3, 4, 5])
    assert scores(store) == WHOLE
    assert store.pushed(ACTIVITY) == Pushed(0, frozenset({3, 4, 5}))


def test_a_piece_counts_as_filled_when_it_is_on_every_master(store: RedisOnlineStore, cluster: Cluster) -> None:
    since = store.begin()
    store.filled(ACTIVITY, Piece(0, 2), 5, "log", since=since)
    assert store.unfilled(ACTIVITY, 2, "log") == [1]
    cluster.nodes[1].flushall()
    assert store.unfilled(ACTIVITY, 2, "log") == [0, 1]
    since = store.begin()
    for number in range(2):
        store.filled(ACTIVITY, Piece(number, 2), 7, "log", since=since)
    assert store.pushed(ACTIVITY) == Pushed(7, log="log")
    cluster.nodes[2].flushall()
    with pytest.raises(StoreUnavailableError, match="emptied"):
        store.filled(ACTIVITY, Piece(0, 2), 9, "log", since=since)


def test_reads_follow_keys_on_the_move_and_lists_are_reset(store: RedisOnlineStore, cluster: Cluster) -> None:
    store.push(ACTIVITY, ROWS, [3])
    slot = key_slot(b"fs:{user:7}")
    start = cluster.owner(slot)
    target = (start + 1) % 3
    cluster.open_slot(slot, target)
    assert scores(store) == WHOLE
    cluster.carry_keys(slot, target)
    assert scores(store) == WHOLE  # some of them by ASK
    with pytest.raises(TransientError, match="is moving keys"):
        store.push(ACTIVITY, ROWS, [4])
    cluster.close_slot(slot, target)
    assert scores(store) == WHOLE  # after MOVED
    assert store.pushed(ACTIVITY) == Pushed()
    store.push(ACTIVITY, ROWS, [3, 4])
    assert store.pushed(ACTIVITY) == Pushed(0, frozenset({3, 4}))
    assert scores(store) == WHOLE


def test_a_push_in_pieces_fails_when_a_master_was_emptied_between_them(
    store: RedisOnlineStore, cluster: Cluster
) -> None:
    since = store.begin()
    store.push(ACTIVITY, ROWS.slice(0, 150), [], since=since)
    store.push(ACTIVITY, ROWS.slice(150), [3], since=since)
    assert 3 in store.pushed(ACTIVITY)
    since = store.begin()
    store.push(ACTIVITY, ROWS.slice(0, 150), [], since=since)
    cluster.nodes[2].flushall()
    with pytest.raises(StoreUnavailableError, match="emptied"):
        store.push(ACTIVITY, ROWS.slice(150), [4], since=since)
    assert 4 not in store.pushed(ACTIVITY)


def test_what_the_log_lacks_is_swept_from_all_masters(store: RedisOnlineStore) -> None:
    store.push(ACTIVITY, ROWS, [3])
    assert sweep(store, ACTIVITY, lambda ids: ROWS.slice(0, 100)) == 200
    assert scores(store) == [*WHOLE[:100], *([None] * 200)]


def test_a_cluster_that_is_not_there_is_named_without_its_password() -> None:
    store = RedisOnlineStore("redis+cluster://:secret@127.0.0.1:1,127.0.0.1:2", timeout_s=0.5)
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1") as refused:
        store.read("user", ["1"], FEATURES, NOW)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["redis+cluster://", "http+cluster://a:1", "redis+cluster://a:1/3"])
def test_an_address_that_is_none_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(SettingsError, match="FEATURESTORE_REDIS_URL"):
        Servers(url, timeout_s=1.0)


def test_windows_are_those_of_a_training_set(store: RedisOnlineStore, cluster: Cluster) -> None:
    """With late events, a slot that moves, and a master that lost everything."""
    database = EmbeddedDatabase()

    def happen(seconds: float, known: float = 0) -> None:
        rows = table([row(one, order(seconds, known), score=float(one) - seconds) for one in IDS[:40]], VISITS)
        push(rows, append(database, VISITS, rows))

    def push(rows: pa.Table, commit_seqs: Sequence[int]) -> None:
        tiles = pa.concat_tables(touched_tiles(database, VISITS, rows, commit_seqs))
        store.push(VISITS, rows, commit_seqs, tiles=tiles)

    def right() -> bool:
        times = [NOW + timedelta(seconds=seconds) for seconds in (0, 3.5, 21, 30, 119, 130)]
        reading = Store(fs.Project((VISITS,)), database, store)
        return not list(differing(reading, VISITS, IDS[:41], times))

    for seconds in (-130, -118.5, -24, -20.5, 0, 2):
        happen(seconds, 3)
    happen(-20.25, 5)  # late
    assert right()
    slot = key_slot(b"fs:{user:7}")
    target = (cluster.owner(slot) + 1) % 3
    cluster.open_slot(slot, target)
    cluster.carry_keys(slot, target)
    cluster.close_slot(slot, target)
    assert right()
    cluster.nodes[1].flushall()
    assert not right()
    for tiles in recent_tiles(database, VISITS, now=NOW):
        store.push(VISITS, newest_rows(database, VISITS), [], tiles=tiles)
    assert right()
    database.close()
