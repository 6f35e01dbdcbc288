"""The digest says what a table holds, not how it is held."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from featurestore.training.digest import table_digest

COLUMNS: dict[str, Any] = {
    "n": pa.array([1, None, 3, 4]),
    "x": pa.array([0.1, None, float("nan"), -0.0]),
    "b": pa.array([True, None, False, True]),
    "s": pa.array(["a", None, "", "ü"]),
    "raw": pa.array([b"a", None, b"", b"\0"]),
    "at": pa.array([datetime(2026, 1, 1, tzinfo=UTC), None, None, None], pa.timestamp("ns", "UTC")),
    "d": pa.array([Decimal("1.20"), None, Decimal("0.00"), Decimal("-3.00")]),
    "nothing": pa.nulls(4),
    "list": pa.array([[1], None, [], [2, None]]),
    "struct": pa.array([{"a": 1}, None, {"a": None}, {"a": 2}]),
}
TABLE = pa.table(COLUMNS)


def rechunked(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table.slice(0, 1), table.slice(1, 0), table.slice(1, 3)])


def sliced(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table, table]).combine_chunks().slice(4, 4)


def taken(table: pa.Table) -> pa.Table:
    return table.take([3, 2, 1, 0]).take([3, 2, 1, 0])


def stored_otherwise(table: pa.Table) -> pa.Table:
    place = table.schema.get_field_index("s")
    return table.set_column(place, "s", table["s"].cast(pa.large_string()))


def as_dictionary(table: pa.Table) -> pa.Table:
    place = table.schema.get_field_index("s")
    return table.set_column(place, "s", table["s"].dictionary_encode())


def with_metadata(table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata({"pandas": "{}"})


def with_rubbish_behind_nulls(table: pa.Table) -> pa.Table:
    validity = table["n"].combine_chunks().buffers()[0]
    rubbish = pa.Array.from_buffers(pa.int64(), 4, [validity, pa.array([1, 99, 3, 4]).buffers()[1]])
    return table.set_column(0, "n", rubbish)


@pytest.mark.parametrize(
    "held", [rechunked, sliced, taken, stored_otherwise, as_dictionary, with_metadata, with_rubbish_behind_nulls]
)
def test_the_same_content_has_the_same_digest(held: Callable[[pa.Table], pa.Table]) -> None:
    assert table_digest(held(TABLE)) == table_digest(TABLE)


def test_any_other_content_has_another() -> None:
    others = [
        TABLE.rename_columns([f"{name}_" for name in TABLE.column_names]),
        TABLE.slice(0, 3),
        TABLE.take([1, 0, 2, 3]),
        TABLE.select(list(reversed(TABLE.column_names))),
        *(
            TABLE.set_column(i, name, TABLE[name].take([0, 2, 1, 3]))
            for i, name in enumerate(COLUMNS)
            if name not in {"nothing", "at"}  # nothing to swap
        ),
        TABLE.set_column(0, "n", TABLE["n"].cast(pa.float64())),
        TABLE.set_column(3, "s", pa.array(["a", None, "ü", ""])),
        TABLE.set_column(3, "s", pa.array(["a", "", "", "ü"])),
    ]
    digests = [table_digest(one) for one in [TABLE, *others]]
    assert len(set(digests)) == len(digests)


def test_the_digest_stays_the_same_for_ever() -> None:
    """Receipts are compared years later; a change of this number needs a new format of receipts."""
    table = pa.table({"n": [1, None], "x": [0.5, 1.5], "s": ["a", None], "b": [True, False]})
    assert table_digest(table) == "479d11068b862487d0d58485f6b3defa86bd414c0806b284a2abc4e582d38ab0"


def test_a_table_without_rows_has_a_digest() -> None:
    assert table_digest(TABLE.slice(0, 0)) == table_digest(TABLE.schema.empty_table())
