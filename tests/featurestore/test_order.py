"""The total order is one order in Python, in the log's SQL and in Redis' bytes."""

import struct

import duckdb
from hypothesis import given
from hypothesis import strategies as st

from featurestore.entity_id import hash64
from featurestore.order import ORDER_COLUMNS, ORDER_SQL, Order, tie

NUMBERS = st.integers(min_value=0, max_value=2**52)
ORDERS = st.builds(Order, *[NUMBERS] * 4)


@given(ORDERS, ORDERS)
def test_bytes_compare_as_the_values_do(one: Order, other: Order) -> None:
    # Redis unpacks the bytes to numbers and compares those; big-endian positive doubles compare as bytes, too.
    assert (struct.unpack(">dddd", one.to_bytes()) < struct.unpack(">dddd", other.to_bytes())) == (one < other)


@given(ORDERS)
def test_bytes_are_exact(order: Order) -> None:
    assert Order.from_bytes(order.to_bytes()) == order


@given(st.lists(ORDERS, min_size=1, max_size=8))
def test_sql_orders_as_python_does(orders: list[Order]) -> None:
    values = ", ".join(f"({o.event_timestamp}, {o.created_at}, {o.sequence}, {o.tie})" for o in orders)
    query = f"SELECT * FROM (VALUES {values}) AS t({', '.join(ORDER_COLUMNS)}) ORDER BY {ORDER_SQL}"
    assert [Order(*row) for row in duckdb.sql(query).fetchall()] == sorted(orders)


@given(st.text())
def test_the_hash_is_the_one_of_the_database(text: str) -> None:
    if "\0" not in text and text.isprintable():
        assert duckdb.execute("SELECT md5_number_lower(?)", [text]).fetchall() == [(hash64(text),)]
        assert tie(text) < 2**52
