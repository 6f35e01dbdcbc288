"""The sorted log: places found by time are those that a look at every row finds."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.training import timeline
from featurestore.training.spine import Entities
from featurestore.training.timeline import Bounds, Candidates, Instants, Moments, Timeline

MICROS = st.integers(-(2**55), 2**55)


@given(st.lists(MICROS, max_size=30), st.lists(MICROS, max_size=10), st.sampled_from([12, 60]))
def test_instants_keep_the_order_of_times(times: list[int], others: list[int], spare_bits: int) -> None:
    """As distances where they fit, as ranks where they do not."""
    instants = Instants(np.array(times, np.int64), spare_bits)
    numbers = instants(np.array(times, np.int64))
    assert instants.bits <= spare_bits
    assert (numbers > 0).all()
    for other in [*others, *times, *(time - 1 for time in times)]:
        number = instants(np.array([other], np.int64))[0]
        assert 0 <= number < 2**instants.bits
        assert [n <= number for n in numbers] == [time <= other for time in times]


def log_of(rows: list[tuple[str, int, int]]) -> pa.Table:
    entities, times, created = zip(*rows, strict=True) if rows else ((), (), ())
    columns: dict[str, Any] = {
        "entity_id": pa.array(entities, pa.string()),
        "event_timestamp": pa.array(times, pa.timestamp("us")),
        "created_at": pa.array(created, pa.timestamp("us")),
        "sequence": pa.array(range(len(rows)), pa.int64()),
        "tie": pa.array([0] * len(rows), pa.int64()),
    }
    return pa.table(columns)


ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30), st.integers(0, 40)), max_size=20)
WANTED = st.lists(st.tuples(st.sampled_from("abd"), st.integers(-1, 45)), min_size=1, max_size=8)


@pytest.mark.parametrize("key_bits", [63, 9])  # 9: as if times and entities did not fit into one number
@given(rows=ROWS, wanted=WANTED, delay_us=st.none() | st.integers(0, 3))
def test_the_newest_visible_row_is_found(
    key_bits: int, rows: list[tuple[str, int, int]], wanted: list[tuple[str, int]], delay_us: int | None
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(timeline, "_KEY_BITS", key_bits)
        ids = sorted({entity for entity, _ in wanted})
        entities = Entities(pa.array(ids), np.array([ids.index(entity) for entity, _ in wanted]))
        moments = Moments.of(entities, np.array([time for _, time in wanted]))
        bounds = Bounds.of(moments, None, len(ids), known_until_us=2**62)
        log = log_of(rows)
        line = Timeline(log, Candidates.of(log, entities, bounds), entities, delay_us=delay_us)
        found = moments.to_spine(line.newest(moments)).tolist()
    for (entity, time), place in zip(wanted, found, strict=True):
        visible = [
            ((happened, created, number), number)
            for number, (of, happened, created) in enumerate(rows)
            if of == entity and happened <= time and (delay_us is None or created + delay_us <= time)
        ]
        assert place == (max(visible)[1] if visible else -1)


@given(ROWS, WANTED)
def test_ranges_hold_the_rows_between_two_moments(
    rows: list[tuple[str, int, int]], wanted: list[tuple[str, int]]
) -> None:
    ids = sorted({entity for entity, _ in wanted})
    entities = Entities(pa.array(ids), np.array([ids.index(entity) for entity, _ in wanted]))
    moments = Moments.of(entities, np.array([time for _, time in wanted]))
    starts = moments.at(moments.times_us - 7)
    log, bounds = log_of(rows), Bounds.of(moments, starts.times_us, len(ids), known_until_us=20)
    line = Timeline(log, Candidates.of(log, entities, bounds), entities, delay_us=None)
    ends, firsts = line.until(moments), line.after(starts)
    for code, time, first, end in zip(moments.codes, moments.times_us, firsts, ends, strict=True):
        held = [rows[place] for place in line.rows[first:end]]
        inside = [row for row in rows if row[0] == ids[code] and time - 7 < row[1] <= time and row[2] <= 20]
        assert held == sorted(inside, key=lambda row: (row[1], row[2], rows.index(row)))
