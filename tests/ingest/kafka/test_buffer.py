"""Records on their way through the buffer."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

import featurestore as fs
from featurestore.landing.columns import Door
from featurestore.landing.schema import landed_schema
from featurestore.settings import IngestSettings
from ingest.kafka.buffer import Buffer, Records
from ingest.records import JsonDecoder

SOURCE = fs.KafkaSource("things", timestamp="at", timestamp_format="s", schema={"n": int})
SETTINGS = IngestSettings(batch_rows=10, batch_bytes=1_000, batch_age_s=5.0)


def filled(offsets: list[int], *, start: int = 0, value: bytes = b'{"n":1,"at":1}') -> Buffer:
    buffer = Buffer(start, landed_schema(SOURCE))
    records = Records(offsets, [value] * len(offsets), [None] * len(offsets))
    decoded = JsonDecoder(Door(SOURCE)).decode(records.values, offsets, datetime(2026, 1, 1, tzinfo=UTC))
    buffer.add(records, decoded, since=100.0)
    return buffer


@given(st.lists(st.integers(0, 30), unique=True).map(sorted), st.integers(0, 30))
def test_records_before_the_tail_are_dropped(offsets: list[int], tail: int) -> None:
    records = Records(offsets, [b""] * len(offsets), [None] * len(offsets)).since(tail)

    assert records.offsets == [offset for offset in offsets if offset >= tail]
    assert len(records.values) == len(records.keys) == len(records.offsets)


@given(st.sets(st.integers(5, 60), min_size=1).map(sorted))
def test_every_offset_is_a_row_or_a_dead_letter_or_absent(offsets: list[int]) -> None:
    for value in (b'{"n":1,"at":1}', b"x"):
        buffer = filled(offsets, start=5, value=value)

        assert buffer.end == offsets[-1] + 1
        assert buffer.rows + len(buffer.dead) + buffer.absent_rows == buffer.end - buffer.start
        assert buffer.table().num_rows == buffer.rows


@pytest.mark.parametrize(("count", "size", "due_at"), [(9, 1, 105.0), (10, 1, 0.0), (2, 499, 105.0), (2, 500, 0.0)])
def test_it_is_due_at_the_first_of_rows_bytes_and_age(count: int, size: int, due_at: float) -> None:
    assert filled(list(range(count)), value=b"x" * size).due_at(SETTINGS) == due_at


def test_its_age_is_that_of_the_oldest_record() -> None:
    buffer = filled([0])
    records = Records([1], [b"x"], [None])
    buffer.add(records, JsonDecoder(Door(SOURCE)).decode(records.values, [1], datetime(2026, 1, 1, tzinfo=UTC)), 200.0)

    assert buffer.due_at(SETTINGS) == 105.0
