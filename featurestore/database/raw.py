"""`raw.<source>`: the landed rows of a source, read by SQL where they lie.

Each is a view over the files that a variable of the reader's connection lists. It is set when a statement names the
relation, so that exactly the batches that have landed by then are seen: no open upload, nothing twice.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.errors import FeatureStoreError, QueryError

_NAMED = re.compile(r'\b"?raw"?\s*\.\s*"?([a-z0-9_]+)', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RawSource:
    """A source's landed schema, and a way to list the files of its batches as of now."""

    name: str
    schema: pa.Schema
    files: Callable[[], Sequence[str]]

    @property
    def variable(self) -> str:
        return f"files_of_raw_{self.name}"


class RawRelations:
    """Thread-safe. `directory` is the database's own; `root` is what the paths of landed files begin with."""

    def __init__(self, sources: Sequence[RawSource], *, directory: Path, root: Path) -> None:
        self._sources = {source.name: source for source in sources}
        self._directory, self._root = directory, root

    def create(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Create the views. An empty file of the declared schema goes first, so that there is always one to read."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection.execute("CREATE SCHEMA IF NOT EXISTS raw")
        for source in self._sources.values():
            pq.write_table(source.schema.empty_table(), self._empty(source))
            self._list(connection, source, [])
            columns = ", ".join(f'"{name}"' for name in source.schema.names)
            connection.execute(
                f'CREATE OR REPLACE VIEW raw."{source.name}" AS '
                f"SELECT {columns}, filename[{len(str(self._root)) + 2}:] AS file FROM read_parquet("
                f"getvariable('{source.variable}'), union_by_name = true, filename = true, hive_partitioning = false)"
            )

    def prepare(self, cursor: duckdb.DuckDBPyConnection, sql: str) -> None:
        """List the files of the sources that a statement names.

        Raises:
            QueryError: the landing zone cannot be read now.
        """
        for name in {match.lower() for match in _NAMED.findall(sql)} & self._sources.keys():
            try:
                self._list(cursor, self._sources[name], self._sources[name].files())
            except (FeatureStoreError, OSError) as error:
                raise QueryError(f"raw.{name} cannot be read: {error}") from error

    def _list(self, cursor: duckdb.DuckDBPyConnection, source: RawSource, files: Sequence[str]) -> None:
        paths = [str(self._empty(source)), *(f"{self._root}/{path}" for path in files)]
        cursor.execute(f"SET VARIABLE {source.variable} = $paths", {"paths": paths})

    def _empty(self, source: RawSource) -> Path:
        return self._directory / f"{source.name}.parquet"
