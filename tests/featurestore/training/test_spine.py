"""What is taken for a spine, and what is refused with row and column named."""

from datetime import UTC, date, datetime
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest

from featurestore.entity_id import entity_id
from featurestore.errors import SpineError
from featurestore.training.spine import read_spine

KEY = ("user_id",)
AWARE = pa.timestamp("us", "UTC")


def spine(times: Any, **columns: Any) -> pa.Table:
    return pa.table({"user_id": [1] * len(times), "event_timestamp": times, **columns})


def test_anything_that_exports_arrow_is_a_spine() -> None:
    table = spine(pa.array([0, 1], AWARE))
    streams: list[Any] = [
        table,
        pa.RecordBatchReader.from_batches(table.schema, table.to_batches()),
        pl.DataFrame(table),
        duckdb.sql("SELECT 1 AS user_id, make_timestamptz(t) AS event_timestamp FROM (VALUES (0), (1)) AS t(t)"),
    ]
    for stream in streams:
        read = read_spine(stream, [KEY])
        assert read.times_us.tolist() == [0, 1]
        assert read.entities[KEY].ids.to_pylist() == ["1"]
        assert read.table.column_names == ["user_id", "event_timestamp"]


@pytest.mark.parametrize(
    ("dtype", "numbers", "micros"),
    [
        ("s", [-1, 2], [-1_000_000, 2_000_000]),
        ("ms", [-1, 2], [-1_000, 2_000]),
        ("us", [-1, 2], [-1, 2]),
        ("ns", [-1, 999, 1000, 1999, -1000, -1001], [-1, 0, 1, 1, -1, -2]),  # the floor: never a later microsecond
    ],
)
def test_times_of_any_unit_are_whole_microseconds_at_or_before(
    dtype: str, numbers: list[int], micros: list[int]
) -> None:
    assert read_spine(spine(pa.array(numbers, pa.timestamp(dtype, "UTC"))), [KEY]).times_us.tolist() == micros  # type: ignore[call-overload]


def test_a_zone_is_an_instant_whatever_its_name() -> None:
    at = datetime(2026, 7, 1, 12, tzinfo=UTC)
    berlin = pa.array([at], pa.timestamp("us", "Europe/Berlin"))
    naive = pa.array([datetime(2026, 7, 1, 14)], pa.timestamp("us"))  # noqa: DTZ001
    wanted = read_spine(spine(pa.array([at], AWARE)), [KEY]).times_us.tolist()
    assert read_spine(spine(berlin), [KEY]).times_us.tolist() == wanted
    assert read_spine(spine(naive), [KEY], time_zone="Europe/Berlin").times_us.tolist() == wanted


def test_the_id_of_a_key_is_the_one_of_the_log() -> None:
    names = ["a|b", "a\\", "|", "Ä"]
    table = pa.table({"n": [1, -2, 3, 4], "name": names, "event_timestamp": pa.array([0] * 4, AWARE)})
    read = read_spine(table, [("n", "name"), ("name",)])
    assert read.entities["n", "name"].ids.to_pylist() == [
        entity_id(pair) for pair in zip([1, -2, 3, 4], names, strict=True)
    ]
    assert read.entities["name",].ids.to_pylist() == names


def test_keys_are_numbers_and_texts_of_any_width() -> None:
    times = pa.array([0, 0, 0], AWARE)
    for keys in (
        pa.array([7, 8, 7], pa.uint16()),
        pa.array(["7", "8", "7"], pa.large_string()),
        pa.array(["7", "8", "7"], pa.string_view()),
        pa.array(["7", "8", "7"]).dictionary_encode(),
    ):
        entities = read_spine(pa.table({"user_id": keys, "event_timestamp": times}), [KEY]).entities[KEY]
        assert [entities.ids[int(code)].as_py() for code in entities.codes] == ["7", "8", "7"]


def test_an_empty_spine_is_a_spine() -> None:
    for empty in (spine(pa.array([], AWARE)), spine([])):
        read = read_spine(empty, [KEY])
        assert read.rows == len(read.times_us) == len(read.entities[KEY].ids) == 0


TIMES = pa.array([0, 1], AWARE)
NAIVE = pa.array([datetime(2026, 1, 1), datetime(2026, 10, 25, 2, 30), datetime(2026, 3, 29, 2, 30)])  # noqa: DTZ001


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (
            spine(NAIVE),
            {},
            '^row 0: event_timestamp has no time zone; use an aware time, or say time_zone="Europe/Berlin"$',
        ),
        (spine(NAIVE), {"time_zone": "Europe/Berlin"}, "row 2: .* does not exist in Europe/Berlin"),
        (spine(NAIVE[:2]), {"time_zone": "Europe/Berlin"}, "row 1: .* happened twice in Europe/Berlin"),
        (spine(NAIVE), {"time_zone": "Mars/Base"}, "Mars/Base"),
        (spine(pa.array([0, None], AWARE)), {}, "row 1: event_timestamp is missing"),
        (spine([date(2026, 1, 1)]), {}, "event_timestamp' is date32.*; the time of a row is a timestamp"),
        (spine(["2026-01-01"]), {}, "is string; the time of a row is a timestamp"),
        (spine(pa.array([0, 2**61], pa.timestamp("us", "UTC"))), {}, "row 1: .* not between the years"),
        (spine(pa.array([2**62], pa.timestamp("s", "UTC"))), {}, "event_timestamp: .*out of bounds"),
        (spine(TIMES), {"time": "at"}, "no column 'at'; it has user_id, event_timestamp; time="),
        (pa.table({"event_timestamp": TIMES}), {}, "no column 'user_id'"),
        (pa.table([TIMES, [1, 2], [1, 2]], ["event_timestamp", "user_id", "user_id"]), {}, "column 'user_id' twice"),
        (spine(TIMES).set_column(0, "user_id", [[1.0, 2.0]]), {}, "'user_id' is double; a key is text or a whole"),
        (spine(TIMES).set_column(0, "user_id", [[True, False]]), {}, "'user_id' is bool"),
        (spine(TIMES).set_column(0, "user_id", [[1, None]]), {}, "row 1: key 'user_id' is missing"),
        (spine(TIMES).set_column(0, "user_id", [["a", ""]]), {}, "row 1: key 'user_id' is an empty text"),
        ([1, 2], {}, "anything that exports an Arrow stream"),
    ],
)  # fmt: skip
def test_what_cannot_be_joined_is_refused(table: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpineError, match=message):
        read_spine(table, [KEY], **options)
