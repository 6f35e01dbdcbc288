"""Training sets as a user makes them: rows, order, ties, ages, knowledge, names; receipts that hold."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import featurestore as fs
from featurestore.errors import SpineError, TerminalError
from featurestore.offline import held, snapshot
from featurestore.testing.memory import MemoryStore
from featurestore.training.kernel import Join
from featurestore.training.pit_plan import ViewRead
from featurestore.training.receipt import Receipt
from featurestore.training.timeline import Moments

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
US, SECOND, MINUTE, HOUR = (timedelta(microseconds=n) for n in (1, 10**6, 60 * 10**6, 3600 * 10**6))

USER = fs.Entity("user", key="user_id")
SHOP = fs.Entity("shop", key="shop")
PAIR = fs.Entity("pair", key=("user_id", "shop"))
SALES = fs.KafkaSource("sales", timestamp="at", schema={"user_id": int, "shop": str, "amount": float | None})
BY_USER = fs.FeatureView(
    "by_user",
    USER,
    SALES,
    [
        fs.Feature("last_amount", float, "amount", max_age="1h"),
        fs.Feature("last_shop", str, "shop"),
        fs.Aggregation("sales", "count", windows=("24s", "1h")),
        fs.Aggregation("spent", "sum", "amount", windows=("1h",)),
    ],
)
BY_SHOP = fs.FeatureView("by_shop", SHOP, SALES, [fs.Feature("shop_amount", float, "amount")])
BY_PAIR = fs.FeatureView("by_pair", PAIR, SALES, [fs.Aggregation("pair_sales", "count", windows=("1h",))])
SHARE = fs.DerivedView(
    "share",
    [BY_USER["spent_1h"], BY_USER["last_amount"]],
    [fs.Feature("share", float, "amount / nullif(spent_1h, 0)")],
    request={"amount": float},
)
PROJECT = fs.Project((BY_USER, BY_SHOP, BY_PAIR, SHARE))


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    store = MemoryStore(PROJECT)
    yield store
    store.close()


def sale(at: datetime, amount: float | None = 1.0, user_id: int = 1, shop: str = "a") -> dict[str, Any]:
    return {"user_id": user_id, "shop": shop, "at": at, "amount": amount}


def spine(*times: datetime, **columns: Any) -> pa.Table:
    ids = columns.pop("user_id", [1] * len(times))
    return pa.table({"user_id": ids, "event_timestamp": pa.array(times, pa.timestamp("us", "UTC")), **columns})


def read(store: MemoryStore, rows: pa.Table, feature: Any, **options: Any) -> list[Any]:
    return store.training_set(rows, [feature], **options).table[feature.name].to_pylist()


LAST, SHOP_NAME = BY_USER["last_amount"], BY_USER["last_shop"]
SALES_24S, SALES_1H, SPENT = BY_USER["sales_24s"], BY_USER["sales_1h"], BY_USER["spent_1h"]


# Rows


def test_rows_come_back_in_their_order_with_their_own_columns_first(store: MemoryStore) -> None:
    store.send(SALES, sale(NOON, 5.0), sale(NOON, 7.0, user_id=2))
    rows = spine(NOON + HOUR, NOON - US, NOON, NOON, NOON + US, user_id=[2, 1, 1, 1, 3], label=[*"edcba"])
    made = store.training_set(rows, [BY_USER])
    assert len(made) == 5
    assert made.table.select(rows.column_names).equals(rows)
    assert made.table.column_names == [
        "user_id", "event_timestamp", "label", "last_amount", "last_shop", "sales_24s", "sales_1h", "spent_1h",
    ]  # fmt: skip
    assert made.table["last_amount"].to_pylist() == [7.0, None, 5.0, 5.0, None]
    assert made.table["sales_1h"].to_pylist() == [0, 0, 1, 1, 0]


def test_an_empty_spine_and_an_empty_log_have_types(store: MemoryStore) -> None:
    types = [pa.float64(), pa.string(), pa.int64(), pa.int64(), pa.float64()]
    for rows in (spine(), spine(NOON)):
        table = store.training_set(rows, [BY_USER]).table
        assert (table.num_rows, table.schema.types[2:]) == (rows.num_rows, types)
    store.send(SALES, sale(NOON))
    assert store.training_set(spine(), [BY_USER]).table.num_rows == 0


def test_a_spine_row_between_two_microseconds_does_not_see_the_later_one(store: MemoryStore) -> None:
    store.send(SALES, sale(NOON, 1.0), sale(NOON + US, 2.0))
    nanos = int(NOON.timestamp()) * 10**9
    times = pa.array([nanos - 1, nanos, nanos + 999, nanos + 1000], pa.timestamp("ns", "UTC"))
    assert read(store, pa.table({"user_id": [1] * 4, "event_timestamp": times}), LAST) == [None, 1.0, 1.0, 2.0]


def test_naive_times_need_a_zone(store: MemoryStore) -> None:
    store.send(SALES, sale(NOON, 1.0))
    naive = pa.table({"user_id": [1], "event_timestamp": pa.array([NOON.replace(tzinfo=None) + 2 * HOUR])})
    with pytest.raises(SpineError, match="row 0: event_timestamp has no time zone"):
        read(store, naive, LAST)
    assert read(store, naive, LAST, time_zone="Europe/Berlin") == [1.0]  # noon in UTC
    assert read(store, naive, LAST, time_zone="UTC") == [None]  # two hours later, too old


def test_the_time_may_stand_in_another_column(store: MemoryStore) -> None:
    store.send(SALES, sale(NOON, 1.0))
    assert read(store, spine(NOON).rename_columns(["user_id", "asked_at"]), LAST, time="asked_at") == [1.0]


# Order


def test_of_equal_times_the_later_known_counts_and_then_the_later_sent(store: MemoryStore) -> None:
    store.send(SALES, sale(NOON, 1.0), created_at=NOON + 2 * SECOND)
    store.send(SALES, sale(NOON, 2.0), created_at=NOON + SECOND)
    assert read(store, spine(NOON), LAST) == [1.0]
    store.send(SALES, sale(NOON, 3.0), sale(NOON, 4.0), created_at=NOON + 2 * SECOND)
    assert read(store, spine(NOON), LAST) == [4.0]


def test_a_later_event_counts_though_an_earlier_one_was_known_later(store: MemoryStore) -> None:
    store.send(SALES, sale(NOON, 2.0), created_at=NOON)
    store.send(SALES, sale(NOON - SECOND, 1.0), created_at=NOON + HOUR)
    assert read(store, spine(NOON + HOUR), LAST) == [2.0]
    assert read(store, spine(NOON + HOUR), LAST, known_at="row") == [2.0]


def test_an_explicit_null_is_null(store: MemoryStore) -> None:
    store.send(SALES, sale(NOON - SECOND, 1.0), sale(NOON, None))
    assert read(store, spine(NOON), LAST) == [None]
    assert read(store, spine(NOON), SPENT) == [1.0]  # a fold skips it


# Ages and windows


def test_a_value_of_exactly_the_greatest_age_is_fresh(store: MemoryStore) -> None:
    store.send(SALES, sale(NOON, 1.0))
    assert read(store, spine(NOON + HOUR, NOON + HOUR + US), LAST) == [1.0, None]
    assert read(store, spine(NOON + HOUR, NOON + HOUR + US), SHOP_NAME) == ["a", "a"]  # this one does not age


def test_a_window_is_open_at_its_start_and_closed_at_its_time(store: MemoryStore) -> None:
    store.send(SALES, sale(NOON, 1.0))
    edges = [NOON - US, NOON, NOON + 24 * SECOND - US, NOON + 24 * SECOND, NOON + 25 * SECOND - US]
    assert read(store, spine(*edges), SALES_24S) == [0, 1, 1, 0, 0]
    # The start moves by whole hops (1 s): what happened within one is kept until the next edge.
    store.send(SALES, sale(NOON + US, 1.0))
    late = [NOON + 24 * SECOND, NOON + 25 * SECOND - US, NOON + 25 * SECOND]
    assert read(store, spine(*late), SALES_24S) == [1, 1, 0]


def test_an_empty_window_counts_nothing_and_sums_to_null(store: MemoryStore) -> None:
    store.send(SALES, sale(NOON, 1.0))
    table = store.training_set(spine(NOON + 2 * HOUR), [SALES_1H, SPENT]).table
    assert table.slice(0, 1).select(["sales_1h", "spent_1h"]).to_pylist() == [{"sales_1h": 0, "spent_1h": None}]


def test_sums_have_the_same_bits_however_the_rows_arrived() -> None:
    amounts = [0.1, 0.2, 0.3, 1e16, -1e16, 0.7] * 5
    sums: set[float] = set()
    for step in (1, 7, 11, 13):
        store = MemoryStore(PROJECT)
        for place in range(len(amounts)):
            at = place * step % len(amounts)
            store.send(SALES, sale(NOON + at * SECOND, amounts[at]), created_at=NOON + HOUR)
        sums.update(read(store, spine(NOON + MINUTE), SPENT))
    assert len(sums) == 1


# What was known


def test_what_was_known(store: MemoryStore) -> None:
    store.send(SALES, sale(NOON, 1.0), created_at=NOON + SECOND)
    store.send(SALES, sale(NOON, 9.0), created_at=NOON + MINUTE)
    rows = spine(NOON, NOON + SECOND - US, NOON + SECOND, NOON + MINUTE)
    assert read(store, rows, LAST) == [9.0] * 4
    assert read(store, rows, LAST, known_at=NOON + MINUTE - US) == [1.0] * 4
    assert read(store, rows, LAST, known_at=NOON) == [None] * 4
    assert read(store, rows, LAST, known_at="row") == [None, None, 1.0, 9.0]
    assert read(store, rows, LAST, known_at="row", delay=SECOND) == [None, None, None, 1.0]
    assert read(store, rows, SPENT, known_at="row") == [None, None, 1.0, 10.0]


# Entities, derived features, names


def test_a_spine_row_may_be_about_several_entities(store: MemoryStore) -> None:
    store.send(SALES, sale(NOON, 1.0, 1, "a"), sale(NOON, 2.0, 11, "b"), sale(NOON, 3.0, 1, "b"))
    rows = spine(NOON, NOON, NOON, user_id=[1, 1, 11], shop=["a", "b", "a"])
    table = store.training_set(rows, [LAST, BY_SHOP, BY_PAIR]).table
    assert table["last_amount"].to_pylist() == [3.0, 3.0, 2.0]
    assert table["shop_amount"].to_pylist() == [1.0, 3.0, 1.0]
    assert table["pair_sales_1h"].to_pylist() == [1, 1, 0]


def test_derived_features_compute_with_the_spine(store: MemoryStore) -> None:
    store.send(SALES, sale(NOON, 4.0), sale(NOON + SECOND, 6.0))
    rows = spine(NOON, NOON + SECOND, NOON - SECOND, amount=[1, 5, 5])
    table = store.training_set(rows, [SHARE]).table
    assert table.column_names == ["user_id", "event_timestamp", "amount", "share"]
    assert table["share"].to_pylist() == [0.25, 0.5, None]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (spine(NOON), "a derived feature computes with 'amount'; the spine needs a column of that name"),
        (spine(NOON, amount=["1"]), "'amount' as float; the spine has it as string"),
        (spine(NOON, amount=[True]), "'amount' as float; the spine has it as bool"),
        (spine(NOON, amount=[1.0], share=[1.0]), "the spine has a column 'share', which is also a feature"),
    ],
)
def test_columns_that_do_not_go_together(store: MemoryStore, rows: pa.Table, message: str) -> None:
    with pytest.raises(SpineError, match=message):
        store.training_set(rows, [SHARE])


# In and out


def in_duckdb(stream: Any) -> duckdb.DuckDBPyRelation:
    return duckdb.connect().from_arrow(stream)


@pytest.mark.parametrize(
    ("frame", "values"),
    [
        (pa.table, lambda made: made.column("last_amount").to_pylist()),
        (pd.DataFrame.from_arrow, lambda made: made["last_amount"].tolist()),
        (pl.DataFrame, lambda made: made["last_amount"].to_list()),
        (in_duckdb, lambda made: [value for (value,) in made.select("last_amount").fetchall()]),
    ],
    ids=["pyarrow", "pandas", "polars", "duckdb"],
)
def test_any_arrow_stream_goes_in_and_comes_out(store: MemoryStore, frame: Any, values: Any) -> None:
    store.send(SALES, sale(NOON, 5.0), sale(NOON, 7.0, user_id=2, shop="ü"))
    rows = spine(NOON, NOON + SECOND, NOON, user_id=[2, 1, 2], shop=["ü", "a", "ü"], amount=[1.0, 2.0, 3.0])
    made = store.training_set(frame(rows), [LAST, BY_PAIR, SHARE])
    plain = store.training_set(rows, [LAST, BY_PAIR, SHARE])
    assert values(frame(made)) == values(frame(pa.table(made))) == [7.0, 5.0, 7.0]
    assert made.table.select(plain.receipt.features).equals(plain.table.select(plain.receipt.features))
    assert store.reproduce(made.receipt, frame(rows)).table.equals(made.table)
    assert store.reproduce(made.receipt, frame(made)).table.equals(made.table)  # its own columns are the spine


def test_progress_is_told(store: MemoryStore) -> None:
    store.send(SALES, sale(NOON))
    told: list[tuple[str, int, int]] = []
    store.training_set(
        spine(NOON, amount=[1.0]), [BY_USER, SHARE], progress=lambda what, done, of: told.append((what, done, of))
    )
    assert [what for what, _, _ in told] == [
        "read by_user@v1", "read by_user@v1", "join by_user@v1", "derive share@v1", "join",
    ]  # fmt: skip
    assert told[1] == ("read by_user@v1", 1, 1)


@pytest.mark.parametrize("memory_bytes", [10**9, 2_000, 1])
def test_of_a_log_larger_than_memory_only_what_matters_is_kept_on_disk_where_it_is_still_too_much(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch, memory_bytes: int
) -> None:
    for batch in range(40):
        store.send(SALES, *(sale(NOON + (batch * 7 % 40) * SECOND, 0.1 * n, user_id=n % 3) for n in range(20)))
    rows = spine(NOON + 10 * SECOND, NOON + 45 * SECOND, NOON, user_id=[1, 2, 2])
    whole = store.training_set(rows, [BY_USER])
    in_memory: list[int] = []
    thin, read_part = Join.thin, Join._read_part

    def thinned(join: Join, view: ViewRead, log: pa.Table) -> pa.Table:
        in_memory.append(log.num_rows)
        return thin(join, view, log)

    def read(join: Join, view: ViewRead, log: pa.Table, moments: Moments) -> Any:
        in_memory.append(log.num_rows)
        return read_part(join, view, log, moments)

    monkeypatch.setattr(Join, "thin", thinned)
    monkeypatch.setattr(Join, "_read_part", read)
    monkeypatch.setattr(held, "_THIN_BYTES", 1)
    monkeypatch.setattr(held, "_MEMORY_BYTES", memory_bytes)
    monkeypatch.setattr(snapshot, "_PAGE_BYTES", 4_000)
    for features in ([BY_USER], [LAST]):
        in_memory.clear()
        again = store.training_set(rows, features)
        assert again.table.equals(whole.table.select(again.table.column_names))
        assert again.receipt.inputs["by_user@v1"].rows == whole.receipt.inputs["by_user@v1"].rows
    assert len(in_memory) > 5
    assert max(in_memory) < 100 < again.receipt.inputs["by_user@v1"].rows  # at most what is kept, and a page


def test_windows_in_which_every_row_matters_are_read_back_from_disk_in_parts(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = 300
    for batch in range(10):
        store.send(SALES, *(sale(NOON + (batch * 7 % 10) * SECOND, 0.1 * n, user_id=n) for n in range(users)))
    rows = spine(*[NOON + MINUTE] * users, NOON, user_id=[*range(users), users + 1])
    whole = store.training_set(rows, [BY_USER])
    parts: list[int] = []
    read_part = Join._read_part

    def read(join: Join, view: ViewRead, log: pa.Table, moments: Moments) -> Any:
        parts.append(log.num_rows)
        return read_part(join, view, log, moments)

    monkeypatch.setattr(Join, "_read_part", read)
    monkeypatch.setattr(held, "_THIN_BYTES", 1)
    monkeypatch.setattr(held, "_MEMORY_BYTES", 20_000)
    again = store.training_set(rows, [BY_USER])
    assert again.receipt == whole.receipt
    assert sum(parts) == 10 * users
    assert len(parts) > 5
    assert max(parts) < 2 * users


# Receipts


def test_a_receipt_says_what_it_was_made_of(store: MemoryStore) -> None:
    store.send(SALES, sale(NOON, 5.0))
    receipt = store.training_set(spine(NOON, NOON - HOUR), [BY_USER]).receipt
    assert receipt.features == ("last_amount", "last_shop", "sales_24s", "sales_1h", "spent_1h")
    assert receipt.versions == {"by_user": 1}
    assert (receipt.rows, receipt.known_at, receipt.commit_seq > 0) == (2, "all", True)
    assert receipt.inputs["by_user@v1"].code_digest == BY_USER.digest
    assert (receipt.statistics["last_amount"].count, receipt.statistics["last_amount"].nulls) == (1, 1)
    assert Receipt.from_json(receipt.to_json()) == receipt


def test_it_can_be_made_again_whatever_comes_after(store: MemoryStore) -> None:
    store.send(SALES, sale(NOON, 5.0), sale(NOON, 2.0, user_id=2))
    rows = spine(NOON, NOON + MINUTE, user_id=[1, 2], amount=[1.0, 2.0])
    made = store.training_set(rows, [BY_USER, SHARE], known_at="row")
    store.send(SALES, sale(NOON, 7.0), created_at=NOON)  # late
    store.send(SALES, sale(NOON + HOUR, 8.0))
    again = store.reproduce(Receipt.from_json(made.receipt.to_json()), pl.DataFrame(rows))
    assert again.table.equals(made.table)
    assert again.receipt == made.receipt
    assert store.training_set(rows, [BY_USER, SHARE], known_at="row").receipt.sha256 != made.receipt.sha256


def test_it_can_be_made_again_after_the_code_changed(store: MemoryStore) -> None:
    store.send(SALES, sale(NOON, 5.0))
    made = store.training_set(spine(NOON + 30 * MINUTE), [LAST, SALES_1H])
    changed = fs.FeatureView(
        "by_user",
        USER,
        SALES,
        [
            fs.Feature("last_amount", float, "amount", max_age="1m"),
            *BY_USER.features[1:],
        ],  # a new age, the same version
    )
    store.project = fs.Project((changed,))
    assert read(store, spine(NOON + 30 * MINUTE), changed["last_amount"]) == [None]
    assert store.reproduce(made.receipt, spine(NOON + 30 * MINUTE)).table.equals(made.table)


def test_another_spine_is_refused(store: MemoryStore) -> None:
    store.send(SALES, sale(NOON, 5.0))
    made = store.training_set(spine(NOON), [LAST])
    with pytest.raises(SpineError, match="not the spine of the receipt"):
        store.reproduce(made.receipt, spine(NOON + US))


def test_a_log_that_lost_rows_is_noticed(store: MemoryStore) -> None:
    other = MemoryStore(PROJECT)
    store.send(SALES, sale(NOON, 5.0))
    made = store.training_set(spine(NOON), [LAST, SHOP_NAME])
    with pytest.raises(TerminalError, match=r"the content differs .* in last_amount, last_shop; rows .* no longer"):
        other.reproduce(made.receipt, spine(NOON))


def test_late_data_is_named_cell_by_cell(store: MemoryStore) -> None:
    store.send(SALES, sale(NOON, 5.0), sale(NOON, 1.0, user_id=2))
    rows = spine(NOON, NOON, user_id=[2, 1])
    made = store.training_set(rows, [LAST, SPENT, SHOP_NAME])
    assert not store.changes(made.receipt, rows).difference
    store.send(SALES, sale(NOON - SECOND, 2.5))
    found = store.changes(made.receipt, rows).difference
    assert found.changed == {"user_id": 0, "event_timestamp": 0, "last_amount": 0, "spent_1h": 1, "last_shop": 0}
    [cell] = found.cells
    assert (cell.row, cell.column, cell.before, cell.after) == (1, "spent_1h", 5.0, 7.5)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"format": 1}', b'{"plan": 3}', b"\xff"])
def test_what_is_no_receipt_is_refused(data: bytes) -> None:
    with pytest.raises(TerminalError, match="not the receipt of a training set"):
        Receipt.from_json(data)


def test_a_newer_receipt_is_refused_with_advice() -> None:
    with pytest.raises(fs.TerminalError, match=r"format 99.*upgrade"):
        Receipt.from_json(b'{"format": 99}')


def test_a_receipt_cannot_smuggle_sql(store: MemoryStore) -> None:
    store.send(SALES, sale(NOON))
    text = store.training_set(spine(NOON), [LAST]).receipt.to_json().decode()
    for changed in (text.replace("by_user@v1", "by_user; DROP@v1"), text.replace('"last_amount"', '"x\\" FROM y"')):
        with pytest.raises(fs.FeatureStoreError, match=r"lower_snake_case|no longer has by_user; DROP"):
            store.reproduce(Receipt.from_json(changed.encode()), spine(NOON))


def test_a_sum_that_does_not_fit_is_an_error() -> None:
    counts = fs.KafkaSource("counts", timestamp="at", schema={"user_id": int, "n": int})
    view = fs.FeatureView("big", USER, counts, [fs.Aggregation("total", "sum", "n", windows=("1h",), dtype=int)])
    store = MemoryStore(fs.Project((view,)))
    store.send(counts, *({"user_id": 1, "at": NOON, "n": n} for n in (2**62, 2**62 - 1)))
    assert read(store, spine(NOON), view["total_1h"]) == [2**63 - 1]
    store.send(counts, {"user_id": 1, "at": NOON, "n": 1})
    with pytest.raises(TerminalError, match="feature 'total_1h': a sum does not fit into 64 bits"):
        read(store, spine(NOON), view["total_1h"])
