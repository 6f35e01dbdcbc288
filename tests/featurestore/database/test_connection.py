"""A database is opened migrated, bounded and locked, or not at all."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import duckdb
import pytest

from featurestore.database.connection import open_database
from featurestore.database.migrations.run import FORMAT
from featurestore.errors import FormatError, TransientError


def test_a_new_file_has_this_format_and_an_epoch_of_its_own(tmp_path: Path) -> None:
    epochs: set[str] = set()
    for name in ("a", "b", "a"):
        with open_database(tmp_path / f"{name}.duckdb") as connection:
            [(epoch, number)] = connection.execute("SELECT epoch, format FROM store_info").fetchall()
            epochs.add(epoch)
            assert number == FORMAT
    assert len(epochs) == 2


def test_a_newer_format_is_refused_with_advice(tmp_path: Path) -> None:
    file = tmp_path / "newer.duckdb"
    with open_database(file) as connection:
        connection.execute("UPDATE store_info SET format = 99")
    with pytest.raises(FormatError, match=r"format 99.*install the version that wrote it"):
        open_database(file)
    with duckdb.connect(str(file)) as connection:  # and was not touched
        assert connection.execute("SELECT format FROM store_info").fetchall() == [(99,)]


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "text.duckdb"
    file.write_text("not a database" * 1000)
    with pytest.raises(FormatError, match=r"text\.duckdb cannot be opened"):
        open_database(file)


def test_a_file_that_another_process_holds_may_be_free_later(tmp_path: Path) -> None:
    file = tmp_path / "held.duckdb"
    code = f"import duckdb, sys; c = duckdb.connect({str(file)!r}); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(TransientError, match="held by another process"):
            open_database(file)
        holder.stdin.close()
        holder.wait(timeout=30)
    open_database(file).close()


@pytest.mark.parametrize(
    "statement",
    [
        "SET threads = 1",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SET allowed_directories = ['/']",
        "RESET memory_limit",
        "COPY (SELECT 1) TO '/tmp/featurestore-must-not-exist.csv'",
        "ATTACH '/tmp/featurestore-must-not-exist.duckdb'",
        "INSTALL httpfs",
    ],
)
def test_even_the_writer_cannot_leave_the_database(statement: str) -> None:
    with open_database() as connection, pytest.raises(duckdb.Error):
        connection.execute(statement)
    assert not list(Path("/tmp").glob("featurestore-must-not-exist*"))


def test_large_queries_may_spill_beside_the_database(tmp_path: Path) -> None:
    with open_database(tmp_path / "small.duckdb", memory="200MB") as connection:
        sql = "SELECT max(s) FROM (SELECT 'abcdefgh' || i AS s FROM range(6000000) AS t(i) ORDER BY s OFFSET 10)"
        assert connection.execute(sql).fetchall() == [("abcdefgh999999",)]


def test_times_are_utc(tmp_path: Path) -> None:
    with open_database(tmp_path / "utc.duckdb") as connection:
        assert connection.cursor().execute("SELECT current_setting('TimeZone')").fetchall() == [("UTC",)]


CRASH = """
import os, sys
from featurestore.database import connection
from featurestore.database.writer import Writer
from tests.featurestore.database.examples import SCHEMA, job
connection._LOG = "1MB"
writer = Writer(connection.open_database(sys.argv[1]))
writer.commit([SCHEMA])
for number in range(60):
    writer.commit([job((f"batch-{number}", 1_000))])
    print(os.path.getsize(sys.argv[1] + ".wal") if os.path.exists(sys.argv[1] + ".wal") else 0)
os._exit(9)
"""


def test_what_is_read_again_after_a_crash_is_bounded_and_whole(tmp_path: Path) -> None:
    """Wherever the crash has cut it off: the rows of a job and its ledger lines are there, or neither."""
    file, log = tmp_path / "crashed.duckdb", tmp_path / "crashed.duckdb.wal"
    command = [sys.executable, "-c", CRASH, str(file)]
    crashed = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=Path(__file__).parents[3])
    assert crashed.returncode == 9, crashed.stderr
    sizes = [int(line) for line in crashed.stdout.split()]
    assert sum(after - before for before, after in pairwise(sizes) if after > before) > 3 * 10**6
    assert max(sizes) < 1.5 * 10**6
    saved, logged = file.read_bytes(), log.read_bytes()
    found: list[int] = []
    for cut in [*range(0, len(logged), len(logged) // 15), len(logged)]:
        file.write_bytes(saved)
        log.write_bytes(logged[:cut])
        with open_database(file) as connection:
            [(lines, rows)] = connection.execute(
                "SELECT (SELECT count(*) FROM applied), (SELECT count(*) FROM log.activity_v1)"
            ).fetchall()
        assert rows == lines * 1_000
        found.append(lines)
    assert found == sorted(found)
    assert len(set(found)) > 3
    assert found[-1] == 60
