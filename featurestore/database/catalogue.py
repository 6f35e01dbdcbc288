"""Which view versions the database knows: registered, checked against declared ones, and read back."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb
import msgspec

from featurestore.database.checks import other_code
from featurestore.database.jobs import FeatureColumn, MoveJob, SchemaJob, ViewTable
from featurestore.database.lake_files import LakeFiles
from featurestore.database.tables import (
    SYSTEM_TARGETS,
    Target,
    create_features_view,
    create_hot_table,
    create_log_view,
    target_of,
)
from featurestore.errors import JobRefusedError

_READ = (Path(__file__).parent / "sql" / "view_versions.sql").read_text()
_REGISTER = (Path(__file__).parent / "sql" / "register_view_version.sql").read_text()


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Generator[None]:
    """Commit at the end, roll back on any error."""
    connection.execute("BEGIN TRANSACTION")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(duckdb.Error):  # a failed COMMIT has rolled back already
            connection.execute("ROLLBACK")
        raise


class Catalogue:
    """The targets of appends; belongs to the writer's connection and thread."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, lake_dir: Path | None = None) -> None:
        """Raises CorruptFileError when a file of the lake is gone."""
        self._connection = connection
        self._lake = LakeFiles(connection, lake_dir)
        self._tables = {version.table.target: version.table for version in self._versions()}
        with transaction(connection):  # the lake may lie elsewhere than last time
            self._lake.check()
            for table in self._tables.values():
                self._create_log(table)

    def target(self, name: str) -> Target:
        """Raises JobRefusedError when nothing of that name is registered."""
        if name in SYSTEM_TARGETS:
            return SYSTEM_TARGETS[name]
        if name not in self._tables:
            raise JobRefusedError(f"target {name!r} is not registered; `featurestore apply` registers what is declared")
        return target_of(self._tables[name])

    def change(self, job: SchemaJob, now: datetime) -> None:
        """Create the tables that are missing; all of the job or nothing.

        Raises:
            JobRefusedError: a version was registered with other code, or a feature's name or type is taken.
        """
        wanted = sorted(job.tables, key=lambda table: (table.view, table.version))
        tables = dict(self._tables)
        for table in wanted:
            _check(table, tables)
            tables[table.target] = table
        with transaction(self._connection):
            for table in wanted:
                if table.target not in self._tables:
                    self._connection.execute(create_hot_table(table))
                    self._create_log(table)
                self._connection.execute(_REGISTER, {**_row(table), "now": now.replace(tzinfo=None)})
            active = [version.table for version in self._versions() if version.active]
            self._connection.execute(create_features_view(active))
        self._tables = tables

    def move(self, job: MoveJob, now: datetime) -> None:
        """Swap rows for files of the lake, in one transaction; a job that was done before changes nothing.

        Raises:
            JobRefusedError: there is no such log or file, or the files do not hold exactly the rows.
        """
        if job.target not in self._tables:
            raise JobRefusedError(f"there is no log {job.target!r}")
        table = self._tables[job.target]
        with transaction(self._connection):
            self._lake.move(job, table, now)
            self._create_log(table)

    def _create_log(self, table: ViewTable) -> None:
        self._connection.execute(create_log_view(table, self._lake.paths(table.target)))

    def _versions(self) -> list["_Version"]:
        return [_version(*row) for row in self._connection.execute(_READ).fetchall()]


@dataclass(frozen=True, slots=True)
class _Version:
    """A registered version; the active one is what readers that name no version get."""

    table: ViewTable
    active: bool


def _version(  # the columns of sql/view_versions.sql
    target: str,
    view: str,
    version: int,
    digest: str,
    source: str,
    entity: str,
    columns: str,
    features: str,
    active: bool,
) -> _Version:
    table = ViewTable(
        target=target,
        view=view,
        version=version,
        entity=entity,
        source=source,
        digest=digest,
        columns=msgspec.json.decode(columns, type=tuple[tuple[str, str], ...]),
        features=msgspec.json.decode(features, type=tuple[FeatureColumn, ...]),
    )
    return _Version(table, active)


def _row(table: ViewTable) -> Mapping[str, str | int]:
    return {
        "target": table.target,
        "view": table.view,
        "version": table.version,
        "digest": table.digest,
        "source": table.source,
        "entity": table.entity,
        "columns": msgspec.json.encode(table.columns).decode(),
        "features": msgspec.json.encode(table.features).decode(),
    }


def _check(table: ViewTable, known: Mapping[str, ViewTable]) -> None:
    same = known.get(table.target)
    if same is not None and same.digest != table.digest:
        raise JobRefusedError(other_code(table.target))
    for other in known.values():
        for feature in table.features:
            for taken in other.features:
                if taken.name == feature.name:
                    _check_feature(feature, table, taken, other)


def _check_feature(feature: FeatureColumn, table: ViewTable, taken: FeatureColumn, other: ViewTable) -> None:
    """A feature name belongs to one view and has one type, for ever."""
    if other.view != table.view:
        raise JobRefusedError(f"feature {feature.name!r} of view {table.view!r} belongs to view {other.view!r}")
    if taken.dtype != feature.dtype:
        raise JobRefusedError(
            f"feature {feature.name!r} is {taken.dtype} in {other.target} and {feature.dtype} in {table.target}; "
            "a feature has one type for ever: give it another name"
        )
