"""What a reader may do: one statement, SELECT or EXPLAIN, of operators known to read only, never committed.

No single check is enough. `WITH x AS (INSERT …) SELECT …` is parsed as a SELECT; `COMMIT; DELETE …` walks out of a
read-only transaction; a read-only transaction lets `WITH x AS (COPY … TO …)` write files.
"""

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import duckdb
import msgspec
import pyarrow as pa

from featurestore.database.reads import Params, Scalar, Value
from featurestore.errors import QueryError

Bound = dict[str, Any] | list[Any]

BATCH_ROWS = 65_536
_REMEMBERED, _REMEMBERED_LENGTH = 500, 10_000

# Every operator of a plan must be in here. Scans are named after the table function: no function that is not listed
# can be read from, e.g. those that show settings, secrets or logs, or that make a checkpoint.
_OPERATORS = """
    SEQ_SCAN INDEX_SCAN COLUMN_DATA_SCAN DUMMY_SCAN CHUNK_SCAN DELIM_SCAN EXPRESSION_SCAN POSITIONAL_SCAN EMPTY_RESULT
    CTE CTE_SCAN RECURSIVE_CTE REC_CTE REC_KEY_CTE RECURSIVE_KEY_CTE REC_CTE_SCAN REC_REC_CTE_SCAN RECURSIVE_CTE_SCAN
    RECURSIVE_RECURRING_CTE_SCAN RECURSIVE_KEY_JOIN RECURSIVE_PARTIAL_KEY_JOIN
    PROJECTION FILTER ORDER_BY TOP_N LIMIT LIMIT_PERCENT STREAMING_LIMIT LIMITED_DISTINCT UNION UNNEST PIVOT
    RESERVOIR_SAMPLE BLOCKING_SAMPLE STREAMING_SAMPLE
    UNGROUPED_AGGREGATE SIMPLE_AGGREGATE HASH_GROUP_BY PERFECT_HASH_GROUP_BY PARTITIONED_AGGREGATE
    WINDOW STREAMING_WINDOW WINDOW_SELF_JOIN
    HASH_JOIN NESTED_LOOP_JOIN BLOCKWISE_NL_JOIN PIECEWISE_MERGE_JOIN IE_JOIN ASOF_JOIN POSITIONAL_JOIN CROSS_PRODUCT
    DELIM_JOIN LEFT_DELIM_JOIN RIGHT_DELIM_JOIN
    READ_PARQUET PARQUET_SCAN RANGE GENERATE_SERIES REPEAT JSON_EACH JSON_TREE SUMMARY
    DUCKDB_COLUMNS DUCKDB_CONSTRAINTS DUCKDB_FUNCTIONS DUCKDB_SCHEMAS DUCKDB_TABLES DUCKDB_TYPES DUCKDB_VIEWS
    PRAGMA_TABLE_INFO PRAGMA_SHOW
"""
OPERATORS = frozenset(_OPERATORS.split())

# EXPLAIN is rebuilt from its parts, so that no option (ANALYZE runs the statement) gets through.
_EXPLAIN = re.compile(
    r"\s*EXPLAIN\s+(?:\(\s*FORMAT\s+(?P<format>TEXT|JSON)\s*\)\s*)?(?P<inner>.+)", re.IGNORECASE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Caps:
    """The largest result a reader gets."""

    rows: int
    bytes: int


@contextmanager
def reading(connection: duckdb.DuckDBPyConnection) -> Generator[duckdb.DuckDBPyConnection]:
    """A fresh cursor (nothing temporary of an earlier reader) in a read-only transaction that is always rolled back."""
    cursor = connection.cursor()
    try:
        cursor.execute("BEGIN TRANSACTION READ ONLY")
        yield cursor
    finally:
        with suppress(duckdb.Error):
            cursor.execute("ROLLBACK")
        cursor.close()


class Guard:
    """Checks and runs readers' statements; remembers which texts were found harmless. Thread-safe."""

    def __init__(self, caps: Caps) -> None:
        self._caps = caps
        self._harmless: set[str] = set()

    def read(self, cursor: duckdb.DuckDBPyConnection, sql: str, params: Params | None) -> pa.Table:
        """Run a reader's statement on a cursor from `reading`.

        Raises:
            QueryError: it was refused, interrupted, failed, or gave more than the caps allow; the message says which.
        """
        bound = _bound(params)
        try:
            if sql not in self._harmless:
                inner, explain = _checked(cursor, sql, bound)
                if explain:
                    return _explained(cursor, f"{explain} {inner}", bound)
                self._remember(sql)
            return _collect(cursor.sql(sql, params=bound).to_arrow_reader(BATCH_ROWS), self._caps)
        except (duckdb.FatalException, duckdb.InternalException):
            raise  # not the reader's fault: the database is gone
        except (duckdb.Error, pa.ArrowException, OSError) as error:  # an error while rows stream comes out of Arrow
            raise QueryError(_TRACEBACK.sub(r"\1", str(error))) from error

    def _remember(self, sql: str) -> None:
        """What a statement does depends on its text alone, unless it runs a text that it is given (`query($text)`)."""
        if "query" not in sql.lower() and len(sql) <= _REMEMBERED_LENGTH:
            if len(self._harmless) >= _REMEMBERED:
                self._harmless.clear()
            self._harmless.add(sql)


def _checked(cursor: duckdb.DuckDBPyConnection, sql: str, params: Bound) -> tuple[str, str]:
    """Return the statement to run and, for an EXPLAIN, the words before it."""
    kind = _kind(cursor, sql)
    explain = ""
    if kind == "EXPLAIN":
        match = _EXPLAIN.fullmatch(sql)
        sql = match["inner"] if match else ""
        kind = _kind(cursor, sql) if match else "EXPLAIN with options"
        explain = f"EXPLAIN (FORMAT {match['format'] or 'TEXT'})" if match else ""
    if kind != "SELECT":
        raise QueryError(f"only SELECT and EXPLAIN are allowed here, not {kind}")
    foreign = sorted(_operators(cursor, sql, params) - OPERATORS)
    if foreign:
        raise QueryError(f"this statement does more than read: {', '.join(foreign)} is not allowed here")
    return sql, explain


def _kind(cursor: duckdb.DuckDBPyConnection, sql: str) -> str:
    statements = cursor.extract_statements(sql)
    if len(statements) != 1:
        raise QueryError(f"one statement at a time, not {len(statements)}")
    return statements[0].type.name


def _operators(cursor: duckdb.DuckDBPyConnection, sql: str, params: Bound) -> set[str]:
    """Of the plan as it is written: what the optimizer leaves out (`WHERE $never`), other values or rows bring back."""
    cursor.execute("SET SESSION enable_optimizer = false")
    try:
        plans = cursor.execute(f"EXPLAIN (FORMAT JSON)\n{sql}", params).fetchall()
    except duckdb.Error as error:
        raise type(error)(_LINE.sub(lambda match: f"LINE {int(match[1]) - 1}:", str(error))) from error
    cursor.execute("SET SESSION enable_optimizer = true")
    nodes = [node for _, text in plans for node in msgspec.json.decode(text, type=list[_Node])]
    names: set[str] = set()
    while nodes:
        node = nodes.pop()
        names.add(node.function if node.name == "INOUT_FUNCTION" else node.name)
        nodes += node.children
    return names or {"an unknown plan"}


_TRACEBACK = re.compile(r"Traceback .*?^\w+: (.*)", re.DOTALL | re.MULTILINE)  # of what DuckDB asked Python for
_LINE = re.compile(r"LINE (\d+):")  # of the reader's statement, which stands below the EXPLAIN


class _Node(msgspec.Struct):
    """A node of a plan in JSON."""

    name: str
    children: list["_Node"]
    extra_info: dict[str, object] = {}

    @property
    def function(self) -> str:
        """The function that a table function with rows as input calls; the node's own name does not say."""
        return str(self.extra_info.get("Name", "an unknown function")).upper()


def _explained(cursor: duckdb.DuckDBPyConnection, sql: str, params: Bound) -> pa.Table:
    rows = cursor.execute(sql, params).fetchall()
    return pa.table({"explain_key": [key for key, _ in rows], "explain_value": [value for _, value in rows]})


def _collect(reader: pa.RecordBatchReader, caps: Caps) -> pa.Table:
    """Rows come in pieces, so a result over the caps costs no more memory than one within them."""
    batches: list[pa.RecordBatch] = []
    rows = size = 0
    try:
        for batch in reader:
            rows, size = rows + batch.num_rows, size + batch.nbytes
            if rows > caps.rows:
                raise QueryError(f"the result has more than {caps.rows} rows; aggregate, or add LIMIT")
            if size > caps.bytes:
                raise QueryError(f"the result has more than {caps.bytes} bytes; choose columns, or add LIMIT")
            batches.append(batch)
    finally:
        reader.close()
    return pa.Table.from_batches(batches, reader.schema)


def _bound(params: Params | None) -> Bound:
    if isinstance(params, Mapping):
        return {name: _bindable(value) for name, value in params.items()}
    return [_bindable(value) for value in params or ()]


def _bindable(value: Value) -> Any:
    """Aware times become naive UTC, as the TIMESTAMP columns are."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise QueryError(f"{value} has no time zone; give an aware datetime")
        return value.astimezone(UTC).replace(tzinfo=None)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_bindable(cast("Scalar", one)) for one in value]
    return value
