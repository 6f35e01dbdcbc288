"""The same database over a file of one's own, or in memory: for tests, notebooks and materialize()."""

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import duckdb
import pyarrow as pa

from featurestore.database.connection import MEMORY, open_database, prepare
from featurestore.database.guard import Caps, Guard, reading
from featurestore.database.jobs import AppendJob, AppendReply, CatalogueJob, EraseJob, LakeFile, MoveJob, ViewTable
from featurestore.database.reads import Value
from featurestore.database.rows import build
from featurestore.database.vacuum import vacuum
from featurestore.database.writer import Writer
from featurestore.definitions.query import Query

Row = TypeVar("Row")

_CAPS = Caps(rows=100_000_000, bytes=16 * 2**30)  # the caller's own memory


class EmbeddedDatabase:
    """The service's own writer and guard, without the service. Never point it at the service's file.

    It opens a file (or memory), or takes over a connection that a resource opened; `close` closes either.
    """

    def __init__(
        self, opened: str | Path | duckdb.DuckDBPyConnection = MEMORY, *, lake_dir: Path | None = None
    ) -> None:
        self._opened, self._lake_dir = opened, lake_dir
        self._guard = Guard(_CAPS)
        self._writing = threading.Lock()
        self._open()

    def _open(self) -> None:
        allowed = [self._lake_dir] if self._lake_dir else []
        if isinstance(self._opened, str | Path):
            self._connection = open_database(self._opened, allowed=allowed)
        else:
            self._connection = self._opened
            prepare(self._opened, allowed)
        self._writer = Writer(self._connection, lake_dir=self._lake_dir)
        self._root = self._connection.cursor()

    def append(self, job: AppendJob) -> AppendReply:
        """As `Database.append`."""
        with self._writing:
            return self._writer.commit([job])[0].appended()

    def ensure(self, job: CatalogueJob) -> None:
        """As `Database.ensure`."""
        with self._writing:
            self._writer.commit([job])[0].appended()

    def move(self, job: MoveJob) -> None:
        """As `Database.move`."""
        with self._writing:
            self._writer.commit([job])[0].appended()

    def erase(self, job: EraseJob) -> None:
        """As `Database.erase`."""
        with self._writing:
            self._writer.commit([job])[0].appended()

    def vacuum(self) -> None:
        """As `Database.vacuum`; nobody may read meanwhile. Of a connection that somebody else opened, nothing."""
        if isinstance(self._opened, str | Path) and str(self._opened) != MEMORY:
            with self._writing:
                self._writer.close()
                self.close()
                try:
                    vacuum(Path(self._opened))
                finally:
                    self._open()

    def adopt(self, table: ViewTable, files: Sequence[LakeFile], registered_at: datetime, *, active: bool) -> None:
        """Take over a version of a view with its files of the lake, their ledger and quarantined rows: for a rebuild.

        Raises:
            JobRefusedError: a file is not there.
        """
        with self._writing:
            self._writer.adopt(table, files, registered_at, active=active)

    def query(self, sql: str | Query, params: Mapping[str, Value] | None = None, *, into: type[Row]) -> list[Row]:
        """As `Database.query`."""
        return build(self.query_arrow(sql, params), into)

    def query_arrow(self, sql: str | Query, params: Mapping[str, Value] | None = None) -> pa.Table:
        """As `Database.query_arrow`."""
        with reading(self._root) as cursor:
            return self._guard.read(cursor, sql.sql if isinstance(sql, Query) else sql, params)

    def close(self) -> None:
        self._root.close()
        self._connection.close()
