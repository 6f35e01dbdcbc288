"""A feature view as SQL over the landed rows of its source, called `rows`."""

from featurestore.definitions.dtypes import DUCKDB
from featurestore.definitions.view import Column, Expectation, FeatureView
from featurestore.entity_id import entity_id_sql

KEPT, MISSING_KEY = "_kept", "_missing_key"


def checks_sql(view: FeatureView) -> str:
    """One row of truth values per source row, in order: kept by `where`, key missing, each expectation met."""
    missing = " OR ".join(f'"{column}" IS NULL' for column in view.entity.key_columns)
    parts = [f"coalesce(({view.where}), false) AS {KEPT}", f"({missing}) AS {MISSING_KEY}"]
    # Like CHECK: an expectation fails on false and passes on NULL.
    parts += [f"coalesce(({one.sql}), true) AS {check_name(index)}" for index, one in enumerate(view.expect)]
    return f"SELECT {', '.join(parts)} FROM rows"


def check_name(index: int) -> str:
    return f"_met_{index}"


def features_sql(view: FeatureView) -> str:
    """The head that each row brings along, then the view's typed columns; one row per source row, in order."""
    entity_id = f"{entity_id_sql(view.entity.key_columns)} AS entity_id"
    times = "event_timestamp, created_at" if view.source.created_at else "event_timestamp"
    columns = ", ".join(column_sql(column) for column in view.columns)
    return f"SELECT {entity_id}, {times}, sequence, {columns} FROM rows"


def column_sql(column: Column) -> str:
    return f'CAST(({column.sql}) AS {DUCKDB[column.dtype]}) AS "{column.name}"'


def expressions(view: FeatureView) -> list[tuple[str, str, str]]:
    """Every SQL a view is made of: (what it is, the SQL, the type it must have or "")."""

    def condition(kind: str, sql: str) -> tuple[str, str, str]:
        return kind, sql, "BOOLEAN"

    conditions = [condition("where", view.where), *(condition(_expectation(one), one.sql) for one in view.expect)]
    return conditions + [(f"feature {c.name!r}", c.sql, DUCKDB[c.dtype]) for c in view.columns]


def _expectation(one: Expectation) -> str:
    return f"expectation {one.sql!r}"
