"""Who is served next, how many at once, and when a query has taken too long."""

import threading
from time import monotonic

import duckdb
import pytest

from featurestore.database.lanes import Alarms, FairQueue, Seats, deadline
from tests.services import eventually


def test_clients_take_turns() -> None:
    queue: FairQueue[str] = FairQueue(3)
    for item in ("a1", "a2", "a3", "b1", "c1", "b2"):
        assert queue.put(item[0], item)
    assert not queue.put("a", "one too many")
    assert [queue.take(0.0) for _ in range(7)] == ["a1", "b1", "c1", "a2", "b2", "a3", None]


def test_a_closed_queue_hands_out_the_rest_and_lets_go() -> None:
    queue: FairQueue[str] = FairQueue(1)
    taken: list[str | None] = []
    waiting = threading.Thread(target=lambda: taken.append(queue.take(30.0)))
    waiting.start()
    queue.close()
    waiting.join(timeout=10)
    assert taken == [None]
    queue.put("a", "late")
    assert not queue.closed
    assert queue.take(0.0) == "late"
    assert queue.closed


def test_slow_ones_make_room_while_there_is_room() -> None:
    seats = Seats(2)
    held = [seats.take(0.0) for _ in range(2)]
    assert seats.take(0.0) is None
    for seat in held:
        assert seat is not None
        seat.move()
        seat.move()  # once is enough
    more = [seats.take(0.0) for _ in range(2)]
    assert None not in more
    assert more[0] is not None
    more[0].move()  # no slow seat is free: it keeps its own
    assert seats.take(0.0) is None
    for seat in [*held, *more]:
        assert seat is not None
        seat.leave()
        seat.move()  # too late: nothing
    assert [seats.take(0.0) is None for _ in range(3)] == [False, False, True]


def test_alarms_ring_in_order_unless_it_was_over_before() -> None:
    alarms, rung = Alarms(), dict[str, None]()
    done = threading.Event()

    def ring(name: str) -> None:
        rung[name] = None
        if name == "third":
            done.set()

    with alarms.after(60.0, lambda: ring("never")):
        with alarms.after(0.01, lambda: ring("cancelled")):
            pass
        with (
            alarms.after(0.3, lambda: ring("third")),
            alarms.after(0.1, lambda: ring("first")),
            alarms.after(0.2, lambda: ring("second")),
        ):
            assert done.wait(10)
    alarms.close()
    assert list(rung) == ["first", "second", "third"]


def test_alarms_can_all_ring_at_once() -> None:
    alarms, rung = Alarms(), list[int]()
    with alarms.after(50.0, lambda: rung.append(50)), alarms.after(40.0, lambda: rung.append(40)):
        alarms.ring()
        assert rung[:2] == [40, 50]
        eventually(lambda: len(rung) > 4)  # and again, until it is over
    rung.clear()
    alarms.ring()
    alarms.close()
    assert rung == []


@pytest.mark.parametrize("seconds", [0.2, 60.0])
def test_a_query_is_interrupted_when_its_time_is_up(seconds: float) -> None:
    alarms = Alarms()
    with duckdb.connect() as connection:
        began = monotonic()
        sql = "SELECT count(*) FROM range(100000000000)" if seconds < 1 else "SELECT 1"
        with deadline(alarms, connection, seconds) as limit:
            if seconds < 1:
                with pytest.raises(duckdb.InterruptException):
                    connection.execute(sql).fetchall()
            else:
                connection.execute(sql).fetchall()
        assert limit.passed == (seconds < 1)
        assert monotonic() - began < 30
        limit.interrupt()  # after the end it does nothing
        assert connection.execute("SELECT 1").fetchall() == [(1,)]
    alarms.close()


def test_a_statement_that_begins_when_the_time_is_up_is_interrupted() -> None:
    alarms = Alarms()
    with duckdb.connect() as connection, deadline(alarms, connection, 0.0) as limit:
        eventually(lambda: limit.passed)
        with pytest.raises(duckdb.InterruptException):
            connection.execute("SELECT count(*) FROM range(100000000000)").fetchall()
    alarms.close()
