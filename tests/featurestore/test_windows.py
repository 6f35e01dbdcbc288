"""Windows: the hop of a length, the covered instants, the tile of an instant; the same in Python, numpy and SQL."""

from datetime import timedelta

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.definitions.durations import duration
from featurestore.errors import DefinitionError
from featurestore.windows import FEWEST_HOPS, HOPS, Window, tile_sql

SECOND = 1_000_000
WINDOWS = st.integers(24, 10**8).map(lambda seconds: Window.of(timedelta(seconds=seconds)))
TIMES = st.integers(-(2**51), 2**53)  # from before 1900 to after 2200


@pytest.mark.parametrize(
    ("text", "hop"),
    [
        ("24s", "1s"), ("10m", "10s"), ("12m", "30s"), ("1h", "1m"), ("24h", "1h"), ("1d", "1h"), ("7d", "6h"),
        ("25d", "1d"), ("90d", "1d"), ("25s", "1s"), ("7201s", "1s"), ("5d", "3h"),
    ],
)  # fmt: skip
def test_the_hop_of_a_length(text: str, hop: str) -> None:
    window = Window.of(duration(text, ""))
    assert window.hop_us == duration(hop, "") // timedelta(microseconds=1)


@pytest.mark.parametrize("length", [timedelta(seconds=23), timedelta(0), timedelta(seconds=30, microseconds=1)])
def test_a_length_without_a_hop_is_refused(length: timedelta) -> None:
    with pytest.raises(DefinitionError, match="whole seconds"):
        Window.of(length)


@given(WINDOWS)
def test_the_hop_is_the_largest_that_fits(window: Window) -> None:
    larger = [hop for hop in HOPS if hop > window.hop_us]
    assert all(window.length_us % hop or window.length_us // hop < FEWEST_HOPS for hop in larger)
    assert window.length_us % window.hop_us == 0


@given(WINDOWS, TIMES)
def test_the_start_is_a_tile_edge_at_most_a_hop_too_early(window: Window, time_us: int) -> None:
    start = window.start(time_us)
    assert start % window.hop_us == 0
    assert time_us - window.length_us - window.hop_us < start <= time_us - window.length_us


@given(WINDOWS, TIMES)
def test_a_tile_is_open_at_the_left_and_closed_at_the_right(window: Window, time_us: int) -> None:
    k = window.tile(time_us)
    assert k * window.hop_us - window.hop_us < time_us <= k * window.hop_us
    assert window.tile(k * window.hop_us) == k
    assert window.tile(k * window.hop_us + 1) == k + 1


@given(WINDOWS, TIMES)
def test_a_read_touches_the_tiles_that_a_ring_holds(window: Window, time_us: int) -> None:
    oldest = window.tile(window.start(time_us) + 1)
    assert window.tile(time_us) - oldest + 1 <= window.ring_tiles


@given(WINDOWS, st.lists(TIMES, min_size=1, max_size=20))
def test_numpy_and_sql_say_the_same(window: Window, times: list[int]) -> None:
    array = np.array(times, np.int64)
    tiles = [window.tile(time) for time in times]
    assert window.tile(array).tolist() == tiles
    assert window.start(array).tolist() == [window.start(time) for time in times]
    sql = f"SELECT {tile_sql('make_timestamp(t)', window.hop_us)} FROM (SELECT unnest(?::BIGINT[]) AS t)"
    assert [k for (k,) in duckdb.execute(sql, [times]).fetchall()] == tiles
