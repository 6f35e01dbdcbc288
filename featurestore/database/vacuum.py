"""The database's file written anew: what was deleted leaves its bytes in the old one."""

import os
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from featurestore.database.migrations.run import migrate
from featurestore.database.tables import quoted
from featurestore.errors import NoSpaceError, TransientError

_TABLES = "SELECT schema_name, table_name, sql FROM duckdb_tables() WHERE database_name = 'old'"


def vacuum(file: Path, *, memory: str = "") -> None:
    """Replace a database file, which nobody has open, by one with the same tables, in one step.

    Views but those of the migrations are not there; opening the database makes them. Whatever ends this earlier changes
    nothing.

    Raises:
        TransientError: it cannot be read or written now (NoSpaceError: the disk is full).
    """
    unfinished = file.with_name(f"{file.name}.vacuum")
    remove_database(unfinished)
    try:
        duckdb.connect(str(file)).close()  # writes what its log holds into the file itself
        if wal_of(file).exists():
            raise TransientError(f"{file} cannot be written anew while its log is in use")
        with closing(duckdb.connect(str(unfinished), config={"memory_limit": memory} if memory else {})) as new:
            _copy(file, new)
        _settle(unfinished)
        unfinished.replace(file)
        _settle(file.parent)
    except (duckdb.Error, OSError) as error:
        remove_database(unfinished)
        full = "no space left" in str(error).lower()
        raise (NoSpaceError if full else TransientError)(f"{file} cannot be written anew: {error}") from error


def _copy(file: Path, new: duckdb.DuckDBPyConnection) -> None:
    migrate(new, datetime.now(UTC).replace(tzinfo=None))
    new.execute(f"ATTACH {quoted(str(file))} AS old (READ_ONLY)")
    known = {row[:2] for row in new.execute(_TABLES.replace("'old'", "current_database()")).fetchall()}
    new.execute("DELETE FROM store_info")
    for schema, table, ddl in new.execute(_TABLES).fetchall():
        if (schema, table) not in known:
            new.execute(ddl)
        new.execute(f'INSERT INTO "{schema}"."{table}" BY NAME SELECT * FROM old."{schema}"."{table}"')
    new.execute("DETACH old")
    new.execute("CHECKPOINT")


def _settle(path: Path) -> None:
    """Make a file, or the names in a directory, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def wal_of(file: Path) -> Path:
    """DuckDB's log of what is not in the file itself yet; there is none once a whole file was closed."""
    return file.with_name(f"{file.name}.wal")


def remove_database(file: Path) -> None:
    """A database, its log too."""
    file.unlink(missing_ok=True)
    wal_of(file).unlink(missing_ok=True)
