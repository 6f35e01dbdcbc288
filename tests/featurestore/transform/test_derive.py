"""Derived features: SQL over inputs and request values, NULL as SQL has it, errors with a name."""

import pyarrow as pa
import pytest

import featurestore as fs
from featurestore.transform.derivation import derivation
from featurestore.transform.derive import derive

USER = fs.Entity("user", key="user_id")
EVENTS = fs.KafkaSource("events", timestamp="at", schema={"user_id": int, "n": int, "s": str})
VIEW = fs.FeatureView("view", USER, EVENTS, [fs.Feature("n", int), fs.Feature("s", str)])
RATIO = fs.DerivedView(
    "ratio",
    [VIEW["n"]],
    [fs.Feature("part", float, "n / nullif(total, 0)"), fs.Feature("large", bool, "n > 10")],
    request={"total": float},
)


def test_one_row_out_per_row_in() -> None:
    found = derive(derivation(RATIO), [pa.array([4.0, 0.0, None, 8.0]), pa.array([1, 2, 3, None])])
    assert found.to_pydict() == {"part": [0.25, None, None, None], "large": [False, False, False, None]}
    assert found.schema.types == [pa.float64(), pa.bool_()]


def test_inputs_may_be_of_a_type_that_fits() -> None:
    found = derive(derivation(RATIO), [pa.array([4], pa.int32()), pa.chunked_array([pa.array([1], pa.int16())])])
    assert found["part"].to_pylist() == [0.25]


def test_no_rows_have_types_too() -> None:
    found = derive(derivation(RATIO), [pa.array([], pa.float64()), pa.array([], pa.int64())])
    assert (found.num_rows, found.column_names) == (0, ["part", "large"])


def test_a_view_is_compiled_once() -> None:
    assert derivation(RATIO) is derivation(RATIO)


def test_views_and_derived_views_are_inputs() -> None:
    both = fs.DerivedView("both", [VIEW, RATIO], [fs.Feature("label", str, "s || part")])
    assert [(one.target, one.name) for one in derivation(both).inputs] == [
        ("view@v1", "n"), ("view@v1", "s"), ("ratio@v1", "part"), ("ratio@v1", "large"),
    ]  # fmt: skip


def test_two_inputs_of_one_name_are_refused() -> None:
    clash = fs.DerivedView("clash", [VIEW["n"]], [fs.Feature("x", int, "n")], request={"n": int})
    with pytest.raises(fs.DefinitionError, match="view 'clash': two inputs are called 'n'"):
        derivation(clash)


def test_what_fails_is_named() -> None:
    broken = fs.DerivedView("broken", [VIEW["s"]], [fs.Feature("ok", int, "1"), fs.Feature("number", int, "s::BIGINT")])
    with pytest.raises(fs.TerminalError, match=r"view broken@v1, feature 'number': .*Could not convert"):
        derive(derivation(broken), [pa.array(["a"])])
    with pytest.raises(fs.TerminalError, match="view ratio@v1: 'n' is no int: "):
        derive(derivation(RATIO), [pa.array([1.0]), pa.array([1.5])])


def test_expressions_reach_nothing_but_their_inputs() -> None:
    secret = pa.table({"x": [1]})  # a variable that DuckDB could find by its name
    prying = fs.DerivedView("prying", [VIEW["n"]], [fs.Feature("x", int, "(SELECT max(x) FROM secret)")])
    with pytest.raises(fs.TerminalError, match="secret"):
        derive(derivation(prying), [pa.array([1])])
    files = fs.DerivedView(
        "files", [VIEW["n"]], [fs.Feature("x", str, "(SELECT content FROM read_text('/etc/hostname'))")]
    )
    with pytest.raises(fs.TerminalError, match="disabled"):
        derive(derivation(files), [pa.array([1])])
    assert secret.num_rows == 1
