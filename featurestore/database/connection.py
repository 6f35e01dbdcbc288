"""Opens a database: this software's format, bounded memory, no way out to other files, settings locked."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from featurestore.database.landed_files import PREFIX, LandedFiles
from featurestore.database.migrations.run import migrate
from featurestore.database.tables import quoted
from featurestore.errors import FormatError, TransientError

MEMORY = ":memory:"
_SPILL = "8GB"  # of temporary files of large queries
_LOG = "64MB"  # of what was committed since the last checkpoint; read again when the file is opened after a crash


def open_database(
    path: str | Path = MEMORY, *, memory: str = "", threads: int = 2, allowed: Sequence[Path | LandedFiles] = ()
) -> duckdb.DuckDBPyConnection:
    """Open and migrate the database; whoever calls closes the connection.

    From then on nothing in this instance reads or writes files but the database's own and those in `allowed`, and no
    statement changes that.

    Raises:
        TransientError: another process holds the file.
        FormatError: it was written by a newer version of this software, or is no database.
    """
    file = str(path)
    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": threads,
        "max_temp_directory_size": _SPILL,
        "checkpoint_threshold": _LOG,
    }
    if memory:
        config["memory_limit"] = memory
    if file == MEMORY:
        config["temp_directory"] = ""  # it would otherwise be made in the current directory
    connection = _connect(file, config)
    try:
        prepare(connection, allowed)
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(connection: duckdb.DuckDBPyConnection, allowed: Sequence[Path | LandedFiles] = ()) -> None:
    """Migrate and lock what somebody else has opened. Raises FormatError as `open_database` does."""
    migrate(connection, datetime.now(UTC).replace(tzinfo=None))
    _lock_down(connection, allowed)


def _connect(file: str, config: dict[str, str | bool | int | float | list[str]]) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(file, config=config)
    except duckdb.SerializationException as error:
        raise FormatError(f"{file} cannot be read: {error}") from error
    except duckdb.IOException as error:
        if "lock" in str(error):
            raise TransientError(f"{file} is held by another process: {error}") from error
        raise FormatError(f"{file} cannot be opened: {error}") from error


def _lock_down(connection: duckdb.DuckDBPyConnection, allowed: Sequence[Path | LandedFiles]) -> None:
    """The order matters: directories cannot be allowed once access is off, and nothing once the settings are locked."""
    directories = ", ".join(quoted(str(one.absolute()) if isinstance(one, Path) else PREFIX) for one in allowed)
    for one in allowed:
        if not isinstance(one, Path):
            connection.register_filesystem(one)
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    connection.execute(f"SET allowed_directories = [{directories}]")
    connection.execute("SET enable_external_access = false")  # also: no Python variable is taken for a table
    connection.execute("SET allowed_configs = ['enable_optimizer']")  # the guard looks at plans without it
    connection.execute("SET lock_configuration = true")
