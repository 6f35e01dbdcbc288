"""`raw.<source>`: the landed rows of a source, read by SQL where they lie.

Each is a view over the files that a variable of the reader's connection lists. It is set when a statement names the
relation, so that exactly the batches that have landed by then are seen: no open upload, nothing twice. Rows that were
erased are left out before they are gone from the files.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.database.landed_files import PREFIX, LandedFiles
from featurestore.errors import FeatureStoreError, QueryError

_NAMED = re.compile(r'\b"?raw"?\s*\.\s*"?([a-z0-9_]+)', re.IGNORECASE)
# A slash begins no name of a declared column.
_CREATE = """
    CREATE OR REPLACE VIEW raw."{source}" AS
    SELECT {columns}, "/path"[{root_length} + 1:] AS file
    FROM read_parquet(
        getvariable('{variable}'), union_by_name = true, filename = '/path', hive_partitioning = false
    ) AS landed
    ANTI JOIN (SELECT parse_dirpath(batch_id) AS chain, sequence FROM erased_rows) AS erased
    ON erased.sequence = landed.sequence AND erased.chain = parse_dirpath(landed."/path")[{root_length} + 1:]
"""


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
    """Thread-safe."""

    def __init__(self, sources: Sequence[RawSource], *, directory: Path, landed: Path | LandedFiles) -> None:
        """`directory` is the database's own; `landed` is the landing zone's directory, or what reads its files."""
        self._sources = {source.name: source for source in sources}
        self._directory = directory.absolute()
        self._landed = landed
        self._root = f"{landed.absolute()}/" if isinstance(landed, Path) else PREFIX

    @property
    def allowed(self) -> tuple[Path, Path | LandedFiles]:
        """What DuckDB reads for these relations; see `open_database`."""
        return self._directory, self._landed

    def create(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Create the views. An empty file of the declared schema goes first, so that there is always one to read."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection.execute("CREATE SCHEMA IF NOT EXISTS raw")
        for source in self._sources.values():
            pq.write_table(source.schema.empty_table(), self._empty(source))
            self._list(connection, source, [])
            columns = ", ".join(f'"{name}"' for name in source.schema.names)
            of = {"source": source.name, "variable": source.variable, "root_length": len(self._root)}
            connection.execute(_CREATE.format(**of, columns=columns))

    def prepare(self, cursor: duckdb.DuckDBPyConnection, sql: str) -> None:
        """List the files of the sources that a statement names.

        Raises:
            QueryError: the landing zone cannot be read now.
        """
        if isinstance(self._landed, LandedFiles):
            self._landed.look_again()
        for name in {match.lower() for match in _NAMED.findall(sql)} & self._sources.keys():
            try:
                self._list(cursor, self._sources[name], self._sources[name].files())
            except (FeatureStoreError, OSError) as error:
                raise QueryError(f"raw.{name} cannot be read: {error}") from error

    def _list(self, cursor: duckdb.DuckDBPyConnection, source: RawSource, files: Sequence[str]) -> None:
        paths = [str(self._empty(source)), *(f"{self._root}{path}" for path in files)]
        cursor.execute(f"SET VARIABLE {source.variable} = $paths", {"paths": paths})

    def _empty(self, source: RawSource) -> Path:
        return self._directory / f"{source.name}.parquet"
