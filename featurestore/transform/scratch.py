"""An empty DuckDB to run an expression over an Arrow table in, and to reach nothing else."""

import threading

import duckdb
import pyarrow as pa

_local = threading.local()


def run_sql(sql: str, *, name: str, table: pa.Table) -> pa.Table:
    """The result of `sql` over `table`, called `name`. Raises duckdb.Error as it is."""
    connection = _connection()
    connection.register(name, table)
    try:
        return connection.sql(sql).to_arrow_table()
    finally:
        connection.unregister(name)


def _connection() -> duckdb.DuckDBPyConnection:
    """This thread's own; opening one takes far longer than most expressions."""
    if not hasattr(_local, "connection"):
        config: dict[str, str | bool | int | float | list[str]] = {
            "python_enable_replacements": False,
            "enable_external_access": False,
            "lock_configuration": True,
        }
        _local.connection = duckdb.connect(":memory:", config=config)
    return _local.connection
