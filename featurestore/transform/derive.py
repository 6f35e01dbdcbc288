"""Derived features: SQL over features that were already read and values of the request; nothing is stored.

One function serves training sets and online reads, so that both compute the same.
"""

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from featurestore.definitions.dtypes import arrow_type
from featurestore.errors import TerminalError
from featurestore.transform.derivation import TYPES, Derivation, Input
from featurestore.transform.scratch import run_sql


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
