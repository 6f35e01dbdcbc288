"""Numbered SQL files that bring a database file to this version's format."""

import logging
from datetime import datetime
from pathlib import Path

import duckdb

from featurestore.errors import FormatError

log = logging.getLogger(__name__)

_FILES = sorted(Path(__file__).parent.glob("[0-9]*.sql"))
FORMAT = int(_FILES[-1].name.split("_")[0])


def migrate(connection: duckdb.DuckDBPyConnection, now: datetime) -> None:
    """Apply what is missing, each file in a transaction of its own, so that a crash between two of them is harmless.

    Raises:
        FormatError: a newer version of this software wrote the file.
    """
    found = _format(connection)
    if found > FORMAT:
        raise FormatError(
            f"the database has format {found}, this version reads up to {FORMAT}; "
            "install the version that wrote it, or restore a backup made by this one"
        )
    for file in _FILES[found:]:
        number = int(file.name.split("_")[0])
        connection.execute("BEGIN TRANSACTION")
        connection.execute(file.read_text())
        if number == 1:
            connection.execute("INSERT INTO store_info VALUES (uuid()::VARCHAR, 1, $now)", {"now": now})
        else:
            connection.execute("UPDATE store_info SET format = $number", {"number": number})
        connection.execute("COMMIT")
        log.info("database: applied %s", file.name)


def _format(connection: duckdb.DuckDBPyConnection) -> int:
    tables = connection.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'store_info'").fetchall()
    if not tables:
        return 0
    [(number,)] = connection.execute("SELECT format FROM store_info").fetchall()
    return int(number)
