"""MemoryStore: a whole store in one object, with the product's own code and its strictness."""

import resource
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

import featurestore as fs
from featurestore.errors import TerminalError
from featurestore.testing.memory import MemoryStore
from tests.services import ENV

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)

USER = fs.Entity("user", key="user_id")
PROFILES = fs.UploadSource(
    "profiles", timestamp="as_of", schema={"user_id": int, "income": float, "debt": float | None, "city": str | None}
)
PROFILE = fs.FeatureView(
    "profile",
    USER,
    PROFILES,
    [fs.Feature("ratio", float, "debt / nullif(income, 0)", online=True), fs.Feature("city", str, online=True)],
    where="user_id > 0",
    expect=[fs.Expectation("income >= 0")],
)
MODEL = fs.Model("risk", [PROFILE["city"], PROFILE["ratio"]])
PROJECT = fs.Project((PROFILE,), (MODEL,))


def profile(**changes: Any) -> dict[str, Any]:
    return {"user_id": 1, "as_of": NOW, "income": 200.0, "debt": 50.0, "city": "Ulm", **changes}


def test_what_is_sent_is_online_and_logged_at_once() -> None:
    store = MemoryStore(PROJECT)
    store.send(PROFILES, profile(), profile(user_id=2, debt=None))
    assert store.vectors(MODEL, {"user_id": [2, 1, 3]}) == [["Ulm", None], ["Ulm", 0.25], [None, None]]
    with pytest.raises(fs.DefinitionError, match="'risk' is not a model; give the Model that is declared"):
        store.vectors("risk", {"user_id": [1]})  # pyright: ignore[reportArgumentType]
    [one, two, three] = store.online({"user_id": [1, 2, 3]}, [PROFILE])
    assert [row["ratio"].status for row in (one, two, three)] == ["PRESENT", "NULL", "MISSING"]
    assert one["ratio"].event_timestamp == NOW


def test_rows_that_a_view_refuses_do_not_become_features() -> None:
    store = MemoryStore(PROJECT)
    store.send(PROFILES, profile(income=-1.0), profile(user_id=-1))
    [row] = store.online({"user_id": [1]}, [PROFILE])
    assert row["ratio"].status == "MISSING"
    sql = "SELECT count(*) AS n FROM quarantined_rows"
    assert store.query(sql, into=Count) == [Count(1)]
    assert store.query_arrow(sql).to_pydict() == {"n": [1]}


@dataclass(frozen=True)
class Count:
    n: int


def test_of_two_with_one_time_the_one_sent_later_counts() -> None:
    for created_at in (None, NOW):
        store = MemoryStore(PROJECT)
        for debt in (1.0, 2.0, 4.0):
            store.send(PROFILES, profile(debt=debt), created_at=created_at)
        assert store.vectors(MODEL, {"user_id": [1]}) == [["Ulm", 0.02]]


def test_a_record_is_known_when_it_happened_at_the_earliest() -> None:
    store = MemoryStore(PROJECT)
    store.send(PROFILES, profile(as_of=NOW + timedelta(days=400)))
    [row] = store.online({"user_id": [1]}, [PROFILE])
    assert row["ratio"].value == 0.25


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (profile(incom=1.0), r"record 0: there is no column 'incom'; it has as_of, user_id, income"),
        (profile(as_of=NOW.replace(tzinfo=None)), "as_of is datetime.*; it is an aware datetime"),
        (profile(as_of="2026-01-01"), "as_of is '2026-01-01'; it is an aware datetime"),
        ({"user_id": 1, "income": 1.0}, "as_of is None"),
        (profile(income="1"), "income is '1'; it is declared as float"),
        (profile(user_id=True), "user_id is True; it is declared as int"),
        (profile(user_id=1.0), "user_id is 1.0; it is declared as int"),
        (profile(income=None), r"income is missing; declare `float \| None` if it may be"),
    ],
)
def test_what_a_daemon_would_refuse_is_an_error(record: dict[str, Any], message: str) -> None:
    with pytest.raises(TerminalError, match=message):
        MemoryStore(PROJECT).send(PROFILES, record)


def test_a_whole_number_is_a_float_too() -> None:
    store = MemoryStore(PROJECT)
    store.send(PROFILES, profile(income=100))
    assert store.vectors(MODEL, {"user_id": [1]}) == [["Ulm", 0.5]]


def test_a_landing_long_before_the_event_is_refused() -> None:
    with pytest.raises(TerminalError, match="lands long before it happens"):
        MemoryStore(PROJECT).send(PROFILES, profile(), created_at=NOW - HOUR)


def test_sql_that_does_not_fit_shows_when_the_store_is_made() -> None:
    wrong = fs.FeatureView("wrong", USER, PROFILES, [fs.Feature("x", float, "incom * 2")])
    with pytest.raises(fs.DefinitionError, match='column "incom" is not in source'):
        MemoryStore(fs.Project((wrong,)))


def test_a_whole_test_takes_less_than_a_second() -> None:
    """Imports included, once they are compiled; in CPU time, and the least of three, because other tests may run beside
    it (and twice as much, for slow machines)."""
    code = "import tests.featurestore.testing.test_memory as t; t.test_what_is_sent_is_online_and_logged_at_once()"
    compiling = {**ENV, "PYTHONDONTWRITEBYTECODE": ""}

    def cpu_s() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True, env=compiling, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(cpu_s() for _ in range(3)) < 2


def test_history_is_known_since_its_own_time() -> None:
    """Rows that bring their `created_at` count for training from then on; the others from their landing on."""
    limits = fs.UploadSource("limits", timestamp="at", created_at="loaded_at", schema={"user_id": int, "amount": int})
    limit = fs.FeatureView("credit_limit", USER, limits, [fs.Feature("amount", int)])
    store, old = MemoryStore(fs.Project((limit,))), NOW - 100 * HOUR
    store.send(
        limits,
        {"user_id": 1, "at": old, "loaded_at": old + HOUR, "amount": 1},
        {"user_id": 1, "at": old + HOUR, "loaded_at": old + 10 * HOUR, "amount": 2},
        {"user_id": 1, "at": old + 2 * HOUR, "amount": 3},
    )
    spine = pa.table({"user_id": [1] * 3, "event_timestamp": [old, old + 5 * HOUR, old + 20 * HOUR]})

    assert pa.table(store.training_set(spine, [limit], known_at="row"))["amount"].to_pylist() == [None, 1, 2]
    assert pa.table(store.training_set(spine, [limit]))["amount"].to_pylist() == [1, 3, 3]
