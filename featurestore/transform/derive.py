"""Derived features: SQL over features that were already read and values of the request; nothing is stored.

One function serves training sets and online reads, so that both compute the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import duckdb
import pyarrow as pa

from featurestore.definitions.dtypes import DUCKDB, ScalarType, arrow_type, scalar_of
from featurestore.definitions.view import DerivedView, FeatureView
from featurestore.errors import DefinitionError, TerminalError
from featurestore.transform.scratch import run_sql

TYPES: Mapping[str, ScalarType] = {dtype.__name__: dtype for dtype in DUCKDB}


@dataclass(frozen=True, slots=True)
class Input:
    """A value that a derived view computes with: a feature, or a value of the request (`target` is empty)."""

    name: str
    dtype: str  # str, int, float or bool
    target: str = ""  # <view>@v<version>


@dataclass(frozen=True, slots=True)
class Expression:
    """One derived feature."""

    name: str
    dtype: str
    sql: str

    @property
    def column(self) -> str:
        return f'CAST(({self.sql}) AS {DUCKDB[TYPES[self.dtype]]}) AS "{self.name}"'


@dataclass(frozen=True, slots=True)
class Derivation:
    """A derived view as a plain value: all it takes to compute it, today and from a receipt."""

    target: str
    inputs: tuple[Input, ...]
    expressions: tuple[Expression, ...]

    @property
    def sql(self) -> str:
        """One row per row of `inputs`, in order."""
        return f"SELECT {', '.join(one.column for one in self.expressions)} FROM inputs"


@cache
def derivation(view: DerivedView) -> Derivation:
    """Compile a derived view.

    Raises:
        DefinitionError: two inputs have the same name.
    """
    where = f"view {view.name!r}"
    inputs = [Input(name, scalar_of(declared, where)[0].__name__) for name, declared in view.request.items()]
    for given in view.inputs:
        if isinstance(given, FeatureView | DerivedView):
            target = f"{given.name}@v{given.version}"
            inputs += [Input(one.name, one.dtype.__name__, target) for one in given.all_features]
        else:
            inputs.append(Input(given.name, given.feature.dtype.__name__, f"{given.view}@v{given.version}"))
    names = [one.name for one in inputs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise DefinitionError(f"{where}: two inputs are called {twice!r}")
    return Derivation(
        f"{view.name}@v{view.version}",
        tuple(inputs),
        tuple(Expression(one.name, one.dtype.__name__, one.expression) for one in view.features),
    )


def derive(what: Derivation, columns: Sequence[pa.Array | pa.ChunkedArray]) -> pa.Table:
    """Compute the expressions from one column per input, in the order of `what.inputs`; NULL is SQL's NULL.

    Raises:
        TerminalError: an expression fails on these values; the message names the view and the feature and says why.
    """
    given = zip(what.inputs, columns, strict=True)
    table = pa.Table.from_pydict({one.name: _cast(what, one, column) for one, column in given})
    try:
        return run_sql(what.sql, name="inputs", table=table)
    except duckdb.Error as error:
        raise TerminalError(f"view {what.target}{_failing(what, table)}: {error}") from error


def _failing(what: Derivation, inputs: pa.Table) -> str:
    """Which of the expressions it is that fails."""
    for one in what.expressions:
        try:
            run_sql(f"SELECT {one.column} FROM inputs", name="inputs", table=inputs)
        except duckdb.Error:
            return f", feature {one.name!r}"
    return ""


def _cast(what: Derivation, given: Input, column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    try:
        return column.cast(arrow_type(TYPES[given.dtype]))
    except pa.ArrowException as error:
        raise TerminalError(f"view {what.target}: {given.name!r} is no {given.dtype}: {error}") from error
