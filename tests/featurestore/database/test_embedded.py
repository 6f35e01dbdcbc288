"""An own file keeps what it was given, and is not shared."""

from pathlib import Path

import pytest

from featurestore.database.embedded import EmbeddedDatabase
from featurestore.errors import QueryError
from tests.featurestore.database.examples import SCHEMA, job


def test_a_file_is_found_again(tmp_path: Path) -> None:
    for skipped in (False, True):
        database = EmbeddedDatabase(tmp_path / "own.duckdb")
        database.ensure(SCHEMA)
        assert database.append(job(("a", 2))).skipped == (skipped,)
        database.close()


def test_memory_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    database = EmbeddedDatabase()
    database.ensure(SCHEMA)
    database.append(job(("a", 1000)))
    database.query_arrow("FROM log.activity_v1 ORDER BY ALL")
    database.close()
    assert list(tmp_path.iterdir()) == []


def test_its_readers_are_guarded_too(tmp_path: Path) -> None:
    database = EmbeddedDatabase(tmp_path / "own.duckdb")
    with pytest.raises(QueryError, match="file system operations are disabled"):
        database.query_arrow("FROM read_parquet('/tmp/*.parquet')")
    database.close()
