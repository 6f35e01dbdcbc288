"""Bind every SQL of a project in an empty DuckDB: mistakes show when the code is loaded, before any row arrives."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import duckdb

from featurestore.definitions.dtypes import DUCKDB
from featurestore.definitions.project import Project
from featurestore.definitions.source import Source
from featurestore.definitions.view import DerivedView, FeatureView
from featurestore.errors import DefinitionError
from featurestore.transform.derivation import TYPES, derivation
from featurestore.transform.render import expressions

# What may be cast to a declared type without losing anything that the declaration promises.
_NUMBERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
_NULL = {'"NULL"', "NULL"}
_FITS = {
    "BIGINT": _NUMBERS | _NULL,
    "DOUBLE": _NUMBERS | _NULL | {"DOUBLE", "FLOAT", "DECIMAL"},
    "BOOLEAN": _NULL | {"BOOLEAN"},
    "VARCHAR": _NULL | {"VARCHAR"},
}

# Words that reach beyond the row, or give another value the next time; as columns they are what the source says.
_BEYOND = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | \b(
        select | (?<=\()from | columns(?=\s*\() | random | uuid | uuidv4 | uuidv7 | gen_random_uuid | now | today
        | transaction_timestamp | (?:get_)?current_(?:date|time|timestamp) | localtime | localtimestamp
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
_REFUSED = re.compile(r"cannot contain (aggregates|window functions)|(UNNEST) not supported|(STAR) expression")
_PREFIX = "LINE 1: SELECT ("  # before the expression in what DuckDB shows of a query


@dataclass(frozen=True, slots=True)
class _Sql:
    """An expression of a view, and the DuckDB type that it has to have."""

    view: FeatureView | DerivedView
    what: str
    text: str
    wanted: str

    def wrong(self, reason: str, place: int | None = None) -> DefinitionError:
        """What to raise: the reason, the line of the declaration, the SQL, and a caret."""
        caret = "" if place is None else f"\n    {' ' * place}^"
        where = f"view {self.view.name!r}, {self.what}"
        return DefinitionError(f"{where}: {reason} ({self.view.declared_at})\n    {self.text}{caret}")


def bind(project: Project) -> None:
    """Check the SQL of every view.

    Raises:
        DefinitionError: naming view, expression, column and line, with the place in the SQL.
    """
    sharing: dict[object, list[FeatureView]] = {}  # the rows that they read
    for view in project.feature_views:
        sharing.setdefault((view.source, view.transform), []).append(view)
    with duckdb.connect(":memory:", config={"python_enable_replacements": False}) as connection:
        for views in sharing.values():
            columns = _make_rows(connection, views[0])
            declared = [_Sql(view, *one) for view in views for one in expressions(view)]
            _bind(connection, "rows", columns, declared, f"source {views[0].source.name!r}")
        for view in project.derived_views:
            columns = {one.name: DUCKDB[TYPES[one.dtype]] for one in derivation(view).inputs}
            _make(connection, "inputs", columns)
            declared = [_Sql(view, f"feature {f.name!r}", f.expression, DUCKDB[f.dtype]) for f in view.features]
            _bind(connection, "inputs", list(columns), declared, "the inputs")


def _make_rows(connection: duckdb.DuckDBPyConnection, view: FeatureView) -> list[str]:
    """The table `rows`, empty, as the SQL of a view sees it; returns its columns."""
    columns = _columns(view.source)
    if view.transform is None:
        _make(connection, "rows", columns)
        return list(columns)
    from featurestore.transform.rows import no_rows  # here: without transforms, nothing at load needs Arrow

    rows = no_rows(view)
    connection.register("rows", rows)  # in front of a table of that name
    return rows.column_names


def _columns(source: Source) -> dict[str, str]:
    """Those of the landed rows, then the times under their own names."""
    declared = {column.name: DUCKDB[column.dtype] for column in source.columns.values()}
    times = dict.fromkeys(source.times.values(), "TIMESTAMP")
    return {"sequence": "BIGINT", **times, **declared, **dict.fromkeys(source.times, "TIMESTAMP")}


def _make(connection: duckdb.DuckDBPyConnection, name: str, columns: Mapping[str, str]) -> None:
    connection.unregister(name)
    typed = ", ".join(f'"{column}" {dtype}' for column, dtype in columns.items())
    connection.execute(f"CREATE OR REPLACE TABLE {name} ({typed})")


def _bind(
    connection: duckdb.DuckDBPyConnection, name: str, columns: Sequence[str], declared: Sequence[_Sql], owner: str
) -> None:
    """Check expressions over a table; all in one query, because of many views, and one by one to find the wrong one."""
    distinct = {one.text: one for one in reversed(declared)}
    for one in distinct.values():
        _check_words(one, columns)
    try:
        types = dict(zip(distinct, _types(connection, name, list(distinct)), strict=True))
    except duckdb.Error:
        for one in declared:
            try:
                _types(connection, name, [one.text])
            except duckdb.Error as error:
                raise _explained(str(error), one, columns, owner) from error
        raise
    for one in declared:
        found = types[one.text]
        if found.partition("(")[0] not in _FITS[one.wanted]:
            wanted = next(dtype.__name__ for dtype, name in DUCKDB.items() if name == one.wanted)
            raise one.wrong(f"the expression is {found}, but {wanted} is wanted; cast it or declare it otherwise")


def _types(connection: duckdb.DuckDBPyConnection, name: str, texts: Sequence[str]) -> list[str]:
    """The type of each expression. WHERE takes only what is one value per row."""
    named = ", ".join(f'({text}) AS "?{number}"' for number, text in enumerate(texts))
    is_row = " OR ".join(f'"?{number}" IS NULL' for number in range(len(texts)))
    return [str(one) for one in connection.sql(f"SELECT {named} FROM {name} WHERE {is_row}").types]


def _check_words(one: _Sql, columns: Sequence[str]) -> None:
    for found in _BEYOND.finditer(one.text):
        word = (found[1] or "").lower()
        if word and word not in columns:
            raise one.wrong(_not_of_the_row(word), found.start(1))


def _not_of_the_row(what: str) -> str:
    return f"an expression makes one value of its own row, the same whenever it runs; it cannot use {what}"


def _explained(message: str, one: _Sql, columns: Sequence[str], owner: str) -> DefinitionError:
    """DuckDB's message with the place; of what it says most often, our own words."""
    lines = message.splitlines()
    if unknown := re.search(r'Referenced column "([^"]+)" not found', message):
        near = get_close_matches(unknown[1], columns, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(columns)}"
        found = re.search(rf"\b{re.escape(unknown[1])}\b", one.text)
        return one.wrong(f'column "{unknown[1]}" is not in {owner}{hint}', found.start() if found else None)
    if refused := _REFUSED.search(message):
        return one.wrong(_not_of_the_row(next(filter(None, refused.groups()))))
    caret = next((line.index("^") for line in lines if line.strip(" ^") == "" and "^" in line), None)
    if caret is None or f"{_PREFIX}{one.text}" not in message:
        return one.wrong(" ".join(lines[:2]) if len(lines) > 1 and lines[1].startswith("Did you") else lines[0])
    place = caret - len(_PREFIX)
    if place >= len(one.text):
        return one.wrong("Parser Error: an operand or a parenthesis is missing, or one too many", len(one.text))
    return one.wrong(lines[0], place)
