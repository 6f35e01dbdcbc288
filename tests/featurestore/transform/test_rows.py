"""Source rows → feature rows: every row is exactly one of logged, filtered and quarantined."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import featurestore as fs
from featurestore.errors import TerminalError
from featurestore.landing.batch import Batch, to_micros
from featurestore.landing.schema import landed_schema
from featurestore.order import HEAD, tie
from featurestore.transform.rows import QUARANTINE, FeatureRows, feature_rows
from featurestore_dagster.features.user import CREDIT_PROFILE, PROFILES, USER, USER_ACTION, USER_ACTIVITY, USER_EVENTS

NOW = datetime(2026, 5, 4, 10, 30, tzinfo=UTC)
BATCH = Batch(
    batch_id="s/upload=u/part.parquet",
    source="s",
    start=0,
    end=1,
    rows=1,
    created_at=NOW,
    schema_version="",
    digest="",
    bytes=0,
)


def rows_of(source: fs.UploadSource | fs.KafkaSource, rows: Sequence[dict[str, object]]) -> pa.Table:
    placed = [{"sequence": n, "event_timestamp": to_micros(NOW) + n, **row} for n, row in enumerate(rows)]
    return pa.Table.from_pylist(placed, schema=landed_schema(source).remove_metadata())


def profile(income: float = 200.0, debt: float = 50.0, age_years: int = 30, user_id: int = 1) -> dict[str, object]:
    return {"user_id": user_id, "income": income, "debt": debt, "age_years": age_years}


def apply(view: fs.FeatureView, *rows: dict[str, object]) -> FeatureRows:
    source = view.source
    assert isinstance(source, fs.UploadSource | fs.KafkaSource)
    return feature_rows(view, rows_of(source, rows), BATCH)


def test_rows_from_before_an_optional_column_was_declared_lack_its_value() -> None:
    """And the views that do not use it stay as they are."""

    def view(schema: dict[str, object], expression: str = "n") -> fs.FeatureView:
        source = fs.KafkaSource("s", timestamp="at", schema={"user_id": int, "n": int, **schema})  # type: ignore[dict-item]
        return fs.FeatureView("v", USER, source, [fs.Feature("last", str, expression)])

    old, new = view({}, "cast(n AS VARCHAR)"), view({"page": str | None}, "cast(n AS VARCHAR)")
    reading = view({"page": str | None}, "page")
    landed = rows_of(old.source, [{"user_id": 1, "n": 3}])
    assert old.digest == new.digest != reading.digest
    assert feature_rows(new, landed, BATCH).rows["last"].to_pylist() == ["3"]
    assert feature_rows(reading, landed, BATCH).rows["last"].to_pylist() == [None]
    with pytest.raises(TerminalError, match="landed before source 's' had a column 'page'; declare it optional"):
        feature_rows(view({"page": str}), landed, BATCH)


def test_a_row_becomes_head_and_typed_columns() -> None:
    made = apply(CREDIT_PROFILE, profile(user_id=7))
    assert made.rows.column_names == [*HEAD, "debt_to_income_ratio", "age_years"]
    [row] = made.rows.to_pylist()
    naive = NOW.replace(tzinfo=None)
    assert row == {
        "entity_id": "7",
        "event_timestamp": naive,
        "created_at": naive,
        "sequence": 0,
        "tie": tie(BATCH.batch_id),
        "debt_to_income_ratio": 0.25,
        "age_years": 30,
    }


def test_an_expectation_quarantines_or_warns() -> None:
    made = apply(CREDIT_PROFILE, profile(), profile(income=-1.0), profile(age_years=200))
    assert (made.rows_in, made.rows.num_rows, made.quarantined.num_rows, made.filtered) == (3, 2, 1, 0)
    [bad] = made.quarantined.to_pylist()
    assert (bad["sequence"], bad["reason"]) == (1, "expectation not met: income >= 0 AND debt >= 0")
    assert '"income":-1.0' in bad["row"]
    assert made.quarantined.schema == QUARANTINE
    assert made.warnings == {"age_years BETWEEN 18 AND 120": 1}


def test_where_drops_rows_and_they_are_counted() -> None:
    view = fs.FeatureView("v", USER, PROFILES, [fs.Feature("debt", float)], where="income > 100")
    made = apply(view, profile(income=200.0), profile(income=50.0))
    assert (made.rows.num_rows, made.filtered, made.quarantined.num_rows) == (1, 1, 0)


def test_a_row_without_a_key_is_quarantined() -> None:
    source = fs.UploadSource("s", timestamp="t", schema={"user_id": int | None, "debt": float})
    made = apply(fs.FeatureView("v", USER, source, [fs.Feature("debt", float)]), {"user_id": None, "debt": 1.0})
    assert made.quarantined["reason"].to_pylist() == ["the entity's key is missing"]


def test_inputs_of_windows_are_logged_where_they_count() -> None:
    rows = [{"user_id": 1, "action": action, "amount": amount} for action, amount in (("click", None), ("view", 2.0))]
    made = apply(USER_ACTIVITY, *rows)
    assert made.rows.select(["last_action", "clicks", "spend"]).to_pylist() == [
        {"last_action": "click", "clicks": True, "spend": None},
        {"last_action": "view", "clicks": None, "spend": 2.0},
    ]


def test_an_arrow_function_adds_columns_for_the_expressions() -> None:
    made = apply(USER_ACTION, {"user_id": 1, "action": " Purchase ", "amount": None})
    assert made.rows.select(["bought", "action_length"]).to_pylist() == [{"bought": True, "action_length": 8}]


def test_a_transform_that_drops_rows_is_refused() -> None:
    view = fs.FeatureView("v", USER, USER_EVENTS, [fs.Feature("action", str)], transform=lambda rows: rows.slice(0, 0))
    with pytest.raises(TerminalError, match="it must keep the rows and their order"):
        apply(view, {"user_id": 1, "action": "click", "amount": None})


def test_a_transform_that_fails_is_named() -> None:
    view = fs.FeatureView("v", USER, USER_EVENTS, [fs.Feature("action", str)], transform=lambda rows: rows["gone"])
    with pytest.raises(TerminalError, match=r"view 'v', transform <lambda>: KeyError: .*gone"):
        apply(view, {"user_id": 1, "action": "click", "amount": None})


def test_an_expression_that_fails_on_a_row_is_named() -> None:
    view = fs.FeatureView("v", USER, USER_EVENTS, [fs.Feature("number", int, "CAST(action AS BIGINT)")])
    with pytest.raises(TerminalError, match=r"view 'v': Conversion Error.*click"):
        apply(view, {"user_id": 1, "action": "click", "amount": None})


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-10, 100), st.floats(-10, 100), st.integers(0, 200)), max_size=30))
def test_every_row_is_exactly_one_of_logged_filtered_quarantined(rows: list[tuple[float, float, int]]) -> None:
    view = fs.FeatureView(
        "v",
        USER,
        PROFILES,
        [fs.Feature("debt", float)],
        where="age_years < 100",
        expect=[fs.Expectation("income >= 0")],
    )
    made = apply(view, *[profile(income, debt, age) for income, debt, age in rows])
    logged = set(made.rows["sequence"].to_pylist())
    quarantined = set(made.quarantined["sequence"].to_pylist())
    assert logged == {n for n, (income, _, age) in enumerate(rows) if age < 100 and income >= 0}
    assert quarantined == {n for n, (income, _, age) in enumerate(rows) if age < 100 and income < 0}
    assert made.rows_in == len(logged) + len(quarantined) + made.filtered
