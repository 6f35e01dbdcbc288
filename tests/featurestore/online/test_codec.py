"""Values and rows as bytes."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.definitions.dtypes import ScalarType, arrow_type
from featurestore.online.codec import decode, encode_column, encode_orders, encode_stamps, event_micros, stamp
from featurestore.online.octets import as_bytes, as_list, joined, longer_than
from featurestore.order import Order
from tests.featurestore.online.examples import row, table

VALUES: dict[ScalarType, Any] = {
    float: st.floats(),
    int: st.integers(-(2**63), 2**63 - 1),
    bool: st.booleans(),
    str: st.text(),
}
places = st.builds(
    Order,
    event_timestamp=st.integers(-(2**52), 2**52),
    created_at=st.integers(-(2**52), 2**52),
    sequence=st.integers(0, 2**53),
    tie=st.integers(0, 2**52 - 1),
)


@pytest.mark.parametrize("dtype", list(VALUES))
@given(data=st.data())
def test_every_value_comes_back(dtype: ScalarType, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.none() | VALUES[dtype], max_size=5))
    column = pa.chunked_array([pa.array(values[:2], arrow_type(dtype)), pa.array(values[2:], arrow_type(dtype))])
    stamps = np.arange(4 * len(values), dtype="u1").reshape(len(values), 4)
    stored = as_list(encode_column(column, dtype, stamps))
    assert [one[1:5] for one in stored] == [bytes(row) for row in stamps]
    assert all(
        type(got) is type(want) and same(got, want) for got, want in zip(map(decode, stored), values, strict=True)
    )


def same(got: object, want: object) -> bool:
    if isinstance(got, float) and isinstance(want, float):
        return math.copysign(1, got) == math.copysign(1, want) and (got == want or (got != got and want != want))
    return got == want


@given(st.lists(places, max_size=5))
def test_orders_are_written_as_order_writes_them(orders: list[Order]) -> None:
    rows = table([row(str(number), place) for number, place in enumerate(orders)])
    stored = encode_orders(rows)
    assert as_list(stored) == [place.to_bytes() for place in orders]
    assert as_list(encode_stamps(stored)) == [stamp(place.to_bytes()) for place in orders]
    assert [event_micros(one) for one in as_list(stored)] == [place.event_timestamp for place in orders]


def test_neighbouring_rows_have_other_stamps() -> None:
    # One µs later and one place earlier in the source: a sum of the parts would be the same.
    assert stamp(Order(100, 0, 10, 7).to_bytes()) != stamp(Order(101, 0, 9, 7).to_bytes())


def test_a_value_is_small() -> None:
    stored = encode_column(pa.chunked_array([pa.array([1.5])]), float, np.zeros((1, 4), dtype="u1"))
    assert len(as_list(stored)[0]) == 13


@pytest.mark.parametrize(
    "damaged", [b"", b"F", b"F0000123", b"I0000123456789", b"B0000", b"?000012345678", b"T0000\xff"]
)
def test_damage_is_noticed(damaged: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a stored value|invalid start byte"):
        decode(damaged)


def test_rows_of_bytes_are_joined_whatever_their_kind() -> None:
    fixed = np.frombuffer(b"abcdef", dtype="u1").reshape(3, 2)
    loose = pa.array([b"1", b"", b"333"], pa.binary())
    assert as_list(joined([b"<", fixed, b"|", fixed, b">"], 3)) == [b"<ab|ab>", b"<cd|cd>", b"<ef|ef>"]
    mixed = joined([b"<", fixed, loose, b">"], 3)
    assert as_list(mixed) == [b"<ab1>", b"<cd>", b"<ef333>"]
    assert bytes(as_bytes(mixed[1:])) == b"<cd><ef333>"
    assert (longer_than(fixed, 1), longer_than(fixed, 2), longer_than(loose, 1)) == (3, 0, 1)
