"""Bind every SQL of a view to its source's schema, in an empty DuckDB: mistakes show before any data does."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import duckdb
import pyarrow as pa

from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView
from featurestore.errors import DefinitionError
from featurestore.landing.batch import landed_schema
from featurestore.transform.render import expressions
from featurestore.transform.rows import prepared_rows

# What may be cast to a declared type without losing anything that the declaration promises.
_NUMBERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
_FITS = {
    "BIGINT": _NUMBERS,
    "DOUBLE": _NUMBERS | {"DOUBLE", "FLOAT", "DECIMAL"},
    "BOOLEAN": {"BOOLEAN"},
    "VARCHAR": {"VARCHAR"},
}


def bind(project: Project) -> None:
    """Check the SQL of every feature view.

    Raises:
        DefinitionError: naming view, expression and column, with the place in the SQL.
    """
    sharing: dict[object, list[FeatureView]] = {}  # the rows that they read
    for view in project.feature_views:
        sharing.setdefault((view.source, view.transform), []).append(view)
    with duckdb.connect(":memory:", config={"python_enable_replacements": False}) as connection:
        for views in sharing.values():
            # Not `empty_table()`: it looks for pandas, and takes half a second when it finds it.
            empty = prepared_rows(views[0], pa.Table.from_batches([], landed_schema(views[0].source)))
            connection.register("rows", empty)
            _bind_views(connection, views, empty.column_names)
            connection.unregister("rows")


def _bind_views(connection: duckdb.DuckDBPyConnection, views: Sequence[FeatureView], columns: list[str]) -> None:
    declared = [(view, *one) for view in views for one in expressions(view)]
    types = _types(connection, declared, columns)
    for (view, what, _, wanted), found in zip(declared, types, strict=True):
        if found.partition("(")[0] not in _FITS[wanted] | {'"NULL"', "NULL"}:
            raise DefinitionError(
                f"view {view.name!r}, {what}: the expression is {found}, but {wanted} is declared; "
                "cast it or declare it so"
            )


def _types(
    connection: duckdb.DuckDBPyConnection, declared: Sequence[tuple[FeatureView, str, str, str]], columns: list[str]
) -> list[str]:
    """The type of each expression; all in one query, because of many views, and one by one to find the wrong one."""
    try:
        return [str(one) for one in connection.sql(f"SELECT {_joined(sql for *_, sql, _ in declared)} FROM rows").types]
    except duckdb.Error:
        for view, what, sql, _ in declared:
            try:
                connection.sql(f"SELECT ({sql}) FROM rows")
            except duckdb.Error as error:
                reason = _explain(str(error), view, sql, columns)
                raise DefinitionError(f"view {view.name!r}, {what}: {reason}") from error
        raise


def _joined(expressions: Iterable[str]) -> str:
    return ", ".join(f"({sql})" for sql in expressions)


def _explain(message: str, view: FeatureView, sql: str, columns: list[str]) -> str:
    """DuckDB's message; for an unknown column our own, with a caret under it."""
    match = re.search(r'Referenced column "([^"]+)" not found', message)
    if match is None:
        return f"{message.splitlines()[0]}\n    {sql}"
    unknown = match[1]
    near = get_close_matches(unknown, columns, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(columns)}"
    place = re.search(rf"\b{re.escape(unknown)}\b", sql)
    caret = f"\n    {sql}\n    {' ' * place.start()}^" if place else ""
    return f'column "{unknown}" is not in source {view.source.name!r}{hint}{caret}'
