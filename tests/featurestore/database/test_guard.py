"""No statement of a reader changes anything; weaker guards are broken by the same statements."""

import re
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from featurestore.database.connection import open_database
from featurestore.database.guard import Caps, Guard, reading
from featurestore.errors import QueryError

CORPUS = Path(__file__).parents[2] / "corpus" / "disguised_writes.sql"
KINDS = (
    *("settings", "views", "tables", "sequences", "schemas", "types", "indexes", "variables", "triggers", "databases"),
    *("external_resources", "external_resource_types"),
)
CAPS = Caps(rows=1000, bytes=1_000_000)


@dataclass(frozen=True)
class Victim:
    """A database with something to lose, and directories beside it."""

    home: Path
    connection: duckdb.DuckDBPyConnection

    def statement(self, text: str) -> str:
        file = self.home / "features.duckdb"
        for name, path in (("landing", self.home / "landing"), ("outside", self.home / "outside"), ("file", file)):
            text = text.replace(f"{{{name}}}", str(path))
        return text

    def state(self) -> list[object]:
        """Everything that a statement might change: rows, catalogue, settings, files."""
        run = self.connection.execute
        tables = run("SELECT schema_name || '.' || table_name FROM duckdb_tables() ORDER BY 1").fetchall()
        catalogue = [sorted(map(str, run(f"SELECT * FROM duckdb_{kind}()").fetchall())) for kind in KINDS]
        counts = run(
            "SELECT (SELECT count(*) FROM duckdb_functions()), (SELECT count(*) FROM duckdb_logs())"
        ).fetchall()
        files = {
            str(path): path.read_bytes()
            for directory in ("landing", "outside")
            for path in (self.home / directory).rglob("*")
            if path.is_file()
        }
        return [
            {name: run(f"SELECT * FROM {name} ORDER BY ALL").fetchall() for (name,) in tables},
            catalogue,
            counts,
            files,
        ]


@pytest.fixture
def victim(tmp_path: Path) -> Generator[Victim]:
    with open_victim(tmp_path) as connection:
        yield Victim(tmp_path, connection)


def open_victim(home: Path) -> duckdb.DuckDBPyConnection:
    for directory in ("landing", "outside"):
        (home / directory).mkdir()
    (home / "landing" / "landed.csv").write_text("a\n1\n")
    connection = open_database(home / "features.duckdb", allowed=[home / "landing"])
    connection.execute("CREATE TABLE kept AS SELECT i AS id, 'n' || i AS name FROM range(5) AS t(i)")
    connection.execute("CREATE SEQUENCE counter")
    return connection


def corpus() -> dict[str, str]:
    entries = re.split(r"^--- ", CORPUS.read_text(), flags=re.MULTILINE)[1:]
    return {title: text.strip() for title, text in (entry.split("\n", 1) for entry in entries)}


def guarded(victim: Victim, sql: str) -> None:
    with reading(victim.connection) as cursor:
        Guard(CAPS).read(cursor, sql, None)


def by_type_only(victim: Victim, sql: str) -> None:
    """A weaker guard: one statement that is parsed as SELECT or EXPLAIN."""
    cursor = victim.connection.cursor()
    statements = cursor.extract_statements(sql)
    if [one.type.name for one in statements] in (["SELECT"], ["EXPLAIN"]):
        cursor.execute(sql).fetchall()


def by_transaction_only(victim: Victim, sql: str) -> None:
    """A weaker guard: a read-only transaction that is rolled back."""
    with reading(victim.connection) as cursor:
        cursor.execute(sql).fetchall()


def broken_by(run: Callable[[Victim, str], None], victim: Victim, title: str) -> bool:
    """Whether the statement changed anything."""
    before = victim.state()
    with suppress(QueryError, duckdb.Error):
        run(victim, victim.statement(corpus()[title]))
    return victim.state() != before


def test_the_corpus_is_large() -> None:
    assert len(corpus()) >= 100


def test_no_write_gets_through(victim: Victim) -> None:
    assert [title for title in corpus() if broken_by(guarded, victim, title)] == []


@pytest.mark.parametrize(
    ("weaker", "titles"),
    [
        (
            by_type_only,
            [
                "delete in a with",
                "copy in a with, to the landing zone",
                "explain analyze delete",
                "serialized sql",
                "register an external resource",
                "nextval",
            ],
        ),
        (
            by_transaction_only,
            ["commit and delete", "copy to the landing zone", "copy in a with, over a landed file", "serialized sql"],
        ),
    ],
)
def test_weaker_guards_are_broken(weaker: Callable[[Victim, str], None], titles: list[str], tmp_path: Path) -> None:
    """The negative control: each of these statements does change something where a check is missing."""
    for title in titles:
        home = tmp_path / title.replace(" ", "_")
        home.mkdir()
        with open_victim(home) as connection:
            assert broken_by(weaker, Victim(home, connection), title), title


def test_what_was_found_harmless_does_not_vouch_for_a_text_that_comes_as_a_parameter(victim: Victim) -> None:
    guard = Guard(CAPS)
    sql = "SELECT * FROM Query($text)"
    with reading(victim.connection) as cursor:
        assert guard.read(cursor, sql, {"text": "SELECT 7 AS a"}).to_pylist() == [{"a": 7}]
    before = victim.state()
    write = victim.statement("WITH made AS (COPY (SELECT 1) TO '{landing}/made.csv') SELECT * FROM made")
    with reading(victim.connection) as cursor, pytest.raises(QueryError):
        guard.read(cursor, sql, {"text": write})
    assert victim.state() == before


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT name FROM kept UNION ALL SELECT name FROM duckdb_settings() WHERE $go",
        "SELECT * FROM kept LEFT JOIN duckdb_settings() AS f ON $go",
        "WITH made AS (SELECT * FROM duckdb_settings()) SELECT * FROM kept WHERE $go AND EXISTS (FROM made)",
        "SELECT * FROM duckdb_settings() LIMIT CAST($go AS INTEGER)",
        "SELECT * FROM duckdb_settings() WHERE $go AND now() > TIMESTAMPTZ '2100-01-01'",
        "SELECT * FROM kept, duckdb_settings() WHERE $go AND kept.id > 1000",
    ],
)
def test_what_a_plan_leaves_out_for_some_values_is_checked_as_well(victim: Victim, sql: str) -> None:
    """What was found harmless is not looked at again, whatever values come with the text and whatever rows are new."""
    guard = Guard(CAPS)
    for go in (False, True):
        with (
            reading(victim.connection) as cursor,
            pytest.raises(QueryError, match="DUCKDB_SETTINGS is not allowed here"),
        ):
            guard.read(cursor, sql, {"go": go})


READS = [
    "SELECT * FROM kept",
    "FROM kept",
    "TABLE kept",
    "VALUES (1), (2)",
    "SELECT name, count(*) FROM kept GROUP BY ALL HAVING count(*) > 0 ORDER BY ALL LIMIT 3 OFFSET 1",
    "SELECT name, count(*) FROM kept GROUP BY ROLLUP (name)",
    "SELECT DISTINCT ON (name) * FROM kept ORDER BY name",
    "SELECT * FROM kept UNION SELECT * FROM kept LIMIT 1",
    "SELECT * FROM kept EXCEPT ALL SELECT * FROM kept",
    "SELECT * FROM kept INTERSECT SELECT * FROM kept",
    "SELECT * FROM kept AS a JOIN kept AS b ON a.id = b.id AND a.name >= b.name",
    "SELECT * FROM kept AS a LEFT JOIN kept AS b ON a.id < b.id AND a.name > b.name",
    "SELECT * FROM kept AS a FULL JOIN kept AS b ON a.id < b.id",
    "SELECT * FROM kept AS a ASOF JOIN (SELECT id AS other FROM kept) AS b ON a.id >= b.other",
    "SELECT * FROM kept POSITIONAL JOIN kept AS other",
    "SELECT * FROM kept AS a, kept AS b",
    "SELECT * FROM kept AS a SEMI JOIN kept AS b USING (id)",
    "SELECT * FROM kept AS a WHERE id > ALL (SELECT b.id FROM kept AS b WHERE b.id < a.id)",
    "SELECT * FROM kept AS a WHERE EXISTS (SELECT 1 FROM kept AS b WHERE b.id = a.id + 1)",
    "SELECT *, (SELECT max(b.id) FROM kept AS b WHERE b.id < a.id) FROM kept AS a",
    "SELECT * FROM kept, LATERAL (SELECT kept.id + 1)",
    "SELECT * FROM kept, unnest([1, 2]), generate_series(1, kept.id)",
    "SELECT sum(id) OVER (PARTITION BY name ORDER BY id), row_number() OVER () FROM kept",
    "SELECT * FROM kept QUALIFY row_number() OVER (PARTITION BY name ORDER BY row(id, name) DESC) = 1",
    "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 5) SELECT * FROM r",
    "WITH RECURSIVE r(i, j) USING KEY (i) AS (SELECT 1, 2 UNION SELECT i + 1, j FROM r WHERE i < 5) SELECT * FROM r",
    "WITH c AS MATERIALIZED (SELECT * FROM kept) SELECT count(*) FROM c AS a JOIN c AS b USING (id)",
    "SELECT arg_max(name, id) FILTER (id > 1), approx_quantile(id, 0.5), count(DISTINCT name) FROM kept",
    "SELECT * FROM kept USING SAMPLE 2 ROWS",
    "SELECT * FROM kept TABLESAMPLE 50%",
    "SELECT * FROM kept LIMIT 50%",
    "UNPIVOT (SELECT 1 AS a, 2 AS b) ON a, b",
    "SELECT * FROM json_each('[1, 2]')",
    "SELECT * FROM range(3)",
    "SELECT 1 WHERE false",
    "DESCRIBE kept",
    "SUMMARIZE kept",
    "SHOW TABLES",
    "SHOW ALL TABLES",
    "SELECT * FROM information_schema.columns LIMIT 3",
    "SELECT * FROM pragma_table_info('kept')",
    "SELECT * FROM model_metadata",
    "EXPLAIN SELECT * FROM kept",
    "explain (format json) SELECT * FROM kept",
    "  -- a comment\n  SELECT 1 ; ",
]


@pytest.mark.parametrize("sql", READS)
def test_reads_are_not_in_the_way(victim: Victim, sql: str) -> None:
    guard = Guard(CAPS)
    for _ in range(2):
        with reading(victim.connection) as cursor:
            guard.read(cursor, sql, None)


def test_landed_files_can_be_read_and_no_others(victim: Victim) -> None:
    victim.connection.execute(victim.statement("COPY kept TO '{landing}/kept.parquet'"))
    guard = Guard(CAPS)
    with reading(victim.connection) as cursor:
        assert guard.read(cursor, victim.statement("FROM read_parquet('{landing}/*.parquet')"), None).num_rows == 5
    for sql in (
        "FROM read_parquet('{outside}/*.parquet')",
        "FROM '{outside}/x.csv'",
        "FROM read_text('/etc/passwd')",
        "FROM read_text('{landing}/landed.csv')",
        "FROM read_blob('{file}')",
        "FROM glob('/etc/*')",
        "FROM duckdb_settings()",
        "FROM duckdb_secrets()",
        "FROM duckdb_databases()",
        "FROM duckdb_logs()",
        "FROM victim",
        "FROM CORPUS",
    ):
        with reading(victim.connection) as cursor, pytest.raises(QueryError):
            guard.read(cursor, victim.statement(sql), None)


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT * FROM range(1001)", "the result has more than 1000 rows; aggregate, or add LIMIT"),
        ("SELECT repeat('x', 2000) FROM range(600)", "the result has more than 1000000 bytes"),
        ("SELECT 1; SELECT 2", "one statement at a time, not 2"),
        ("", "one statement at a time, not 0"),
        ("DROP TABLE kept", "only SELECT and EXPLAIN are allowed here, not DROP"),
        ("SELECT nothing FROM kept", '(?s)Referenced column "nothing" not found.*LINE 1: SELECT nothing FROM kept'),
        ("SELECT $x", "(?s)parameters: x"),
        ("SELECT error('no')", "no"),
        ("SELECT CASE WHEN i > 900 THEN error('too late') END FROM range(1000) AS t(i)", "too late"),
    ],
)
def test_the_reason_is_said(victim: Victim, sql: str, reason: str) -> None:
    with pytest.raises(QueryError, match=reason):
        guarded(victim, sql)


def test_parameters_have_their_types(victim: Victim) -> None:
    at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    values = {"a": "x", "b": 2**40, "c": 0.5, "d": True, "e": None, "f": at, "g": [1, 2], "h": b"\x00"}
    sql = "SELECT $a AS a, $b AS b, $c AS c, $d AS d, $e AS e, $f AS f, $g AS g, $h AS h, typeof($f) AS kind"
    with reading(victim.connection) as cursor:
        [row] = Guard(CAPS).read(cursor, sql, values).to_pylist()
    assert row == {**values, "f": at.replace(tzinfo=None), "kind": "TIMESTAMP"}
    with reading(victim.connection) as cursor:
        assert Guard(CAPS).read(cursor, "SELECT ? + ? AS a", [1, 2]).to_pylist() == [{"a": 3}]
    with reading(victim.connection) as cursor, pytest.raises(QueryError, match="no time zone"):
        Guard(CAPS).read(cursor, "SELECT $a", {"a": at.replace(tzinfo=None)})


def test_a_reader_leaves_nothing_behind(victim: Victim) -> None:
    with reading(victim.connection) as cursor:
        cursor.execute("CREATE TEMPORARY TABLE kept AS SELECT 0 AS id")  # a read-only transaction allows it
        assert cursor.execute("SELECT count(*) FROM kept").fetchall() == [(1,)]
    with reading(victim.connection) as cursor:
        assert cursor.execute("SELECT count(*) FROM kept").fetchall() == [(5,)]


def test_a_reader_sees_one_moment(victim: Victim) -> None:
    with reading(victim.connection) as cursor:
        first = cursor.execute("SELECT count(*) FROM kept").fetchall()
        victim.connection.execute("INSERT INTO kept VALUES (9, 'x')")
        assert cursor.execute("SELECT count(*) FROM kept").fetchall() == first == [(5,)]
