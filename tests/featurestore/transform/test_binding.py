"""SQL that does not fit is refused before any row arrives: view, what, why, line, SQL and a caret."""

from inspect import currentframe

import pytest

import featurestore as fs
from featurestore.transform.binding import bind
from featurestore_dagster.features.project import PROJECT
from featurestore_dagster.features.user import PROFILES, USER, USER_ACTIVITY

BEYOND = "an expression makes one value of its own row, the same whenever it runs; it cannot use"


def refusal(*views: fs.FeatureView | fs.DerivedView) -> str:
    with pytest.raises(fs.DefinitionError) as raised:
        bind(fs.Project(views))
    return str(raised.value)


def test_an_unknown_column_is_named_with_its_place_and_a_suggestion() -> None:
    frame = currentframe()
    assert frame is not None
    line = frame.f_lineno + 1
    view = fs.FeatureView("credit", USER, PROFILES, [fs.Feature("ratio", float, "debt / nullif(incom, 0)")])
    assert refusal(view) == (
        "view 'credit', feature 'ratio': column \"incom\" is not in source 'profiles'; did you mean 'income'? "
        f"(tests/featurestore/transform/test_binding.py:{line})\n"
        "    debt / nullif(incom, 0)\n"
        "                  ^"
    )


@pytest.mark.parametrize(
    ("dtype", "sql", "reason", "place"),
    [
        (int, "debt", "the expression is DOUBLE, but int is wanted; cast it or declare it otherwise", None),
        (float, "debt, income", "the expression is TUPLE(DOUBLE, DOUBLE), but float is wanted; cast it or", None),
        (float, "xyz", "column \"xyz\" is not in source 'profiles'; it has sequence, event_timestamp, user_id,", 0),
        (float, "debt plus income", 'Parser Error: syntax error at or near "plus"', 5),
        (float, "debt +", "Parser Error: an operand or a parenthesis is missing, or one too many", 6),
        (float, "abs(debt))", "Parser Error: an operand or a parenthesis is missing, or one too many", 10),
        (float, "squareroot(debt)", "Catalog Error: Scalar Function with name squareroot does not exist! Did", None),
        (float, "sum(debt)", f"{BEYOND} aggregates", None),
        (float, "sum(debt) OVER ()", f"{BEYOND} window functions", None),
        (float, "unnest([debt])", f"{BEYOND} UNNEST", None),
        (float, "columns(*)", f"{BEYOND} columns", 0),
        (float, "debt / (SELECT max(debt) FROM rows)", f"{BEYOND} select", 8),
        (bool, "exists(FROM rows)", f"{BEYOND} from", 7),
        (float, "debt + random()", f"{BEYOND} random", 7),
        (bool, "event_timestamp < now()", f"{BEYOND} now", 18),
        (bool, "event_timestamp < CURRENT_TIMESTAMP", f"{BEYOND} current_timestamp", 18),
    ],
)
def test_sql_that_is_not_one_value_of_the_row_is_refused(
    dtype: type[int] | type[float] | type[bool], sql: str, reason: str, place: int | None
) -> None:
    good = fs.Feature("good", float, "income")  # beside it: what is wrong is found among others
    message = refusal(fs.FeatureView("v", USER, PROFILES, [good, fs.Feature("bad", dtype, sql)]))
    first, shown, *caret = message.split("\n")
    assert first.startswith(f"view 'v', feature 'bad': {reason}")
    assert (shown, caret) == (f"    {sql}", [] if place is None else [f"    {' ' * place}^"])


def test_conditions_and_derived_views_are_bound_too() -> None:
    feature = fs.Feature("debt", float)
    assert "view 'v', where: column" in refusal(fs.FeatureView("v", USER, PROFILES, [feature], where="incom > 0"))
    expecting = fs.FeatureView("v", USER, PROFILES, [feature], expect=[fs.Expectation("incom > 0")])
    assert "view 'v', expectation 'incom > 0': column" in refusal(expecting)
    derived = fs.DerivedView(
        "d", [USER_ACTIVITY["clicks_1h"]], [fs.Feature("burst", float, "clicks_1 / amount")], request={"amount": float}
    )
    assert "view 'd', feature 'burst': column \"clicks_1\" is not in the inputs; did you mean 'clicks_1h'?" in refusal(
        USER_ACTIVITY, derived
    )


def test_columns_and_texts_may_be_called_as_they_like() -> None:
    source = fs.KafkaSource("s", timestamp="at", schema={"user_id": int, "today": float, "note": str})
    texts = "CASE WHEN note <> 'select now()' AND note IS DISTINCT FROM 'x' THEN extract(year FROM event_timestamp) END"
    bind(
        fs.Project((fs.FeatureView("v", USER, source, [fs.Feature("a", float, "today"), fs.Feature("b", int, texts)]),))
    )


def test_the_example_project_binds() -> None:
    bind(PROJECT)
