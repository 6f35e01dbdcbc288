"""P7: a reader can never change data. (That a model is seen whole or not at all has its own file.)"""

import re
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from featurestore.database.client import QueueDatabase
from featurestore.errors import QueryError
from tests.featurestore.database.examples import job
from tests.featurestore.database.serving import client, on_a_thread, settings_for

pytestmark = pytest.mark.services

CORPUS = Path(__file__).parents[1] / "corpus" / "disguised_writes.sql"
# What the corpus aims at, in the tables that every database has.
OURS = {"kept": "log.activity_v1", "counter": "made", "{file}": "{home}/database/features.duckdb"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for directory in ("landing", "outside"):
        (tmp_path / directory).mkdir()
    (tmp_path / "landing" / "landed.csv").write_text("a\n1\n")
    return tmp_path


@pytest.fixture
def database(home: Path, redis_url: str) -> Generator[QueueDatabase]:
    settings = settings_for(home, redis_url)
    with on_a_thread(settings), client(settings) as opened:
        opened.append(job(("a", 100), ("b", 10)))
        yield opened


def statements(home: Path) -> list[str]:
    texts = [entry.split("\n", 1)[1].strip() for entry in re.split(r"(?m)^--- ", CORPUS.read_text())[1:]]
    for ours, theirs in OURS.items():
        texts = [text.replace(ours, theirs) for text in texts]
    places = {"{landing}": home / "landing", "{outside}": home / "outside", "{home}": home}
    for name, place in places.items():
        texts = [text.replace(name, str(place)) for text in texts]
    return texts


RELATIONS = (
    *("log.activity_v1", "applied", "view_versions", "model_metadata_log", "store_info", "features"),
    "(SELECT sql FROM duckdb_tables() UNION ALL SELECT sql FROM duckdb_views())",
)


def state(database: QueueDatabase, home: Path) -> tuple[pa.Table, dict[str, bytes]]:
    """Every row of every relation, as text; and every file."""
    parts = [f"SELECT {number} AS relation, r::VARCHAR AS row FROM {name} r" for number, name in enumerate(RELATIONS)]
    rows = database.query_arrow(" UNION ALL ".join(parts) + " ORDER BY ALL")
    files = {
        str(path): path.read_bytes()
        for directory in ("landing", "outside")
        for path in (home / directory).rglob("*")
        if path.is_file()
    }
    return rows, files


def test_nothing_that_a_reader_sends_changes_anything(database: QueueDatabase, home: Path) -> None:
    before = state(database, home)
    for sql in statements(home):
        with suppress(QueryError):
            database.query_arrow(sql)
        assert state(database, home) == before, sql
    assert before[0]["relation"].to_pylist().count(0) == 110


def test_the_writer_does_change_what_is_compared(database: QueueDatabase, home: Path) -> None:
    """The negative control: the comparison above does see a write."""
    before = state(database, home)
    database.append(job(("c", 1)))
    assert state(database, home) != before
