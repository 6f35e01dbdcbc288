"""Which view versions the database knows: registered, checked against declared ones, and read back."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb
import msgspec

from featurestore.database.checks import other_code
from featurestore.database.erasing import ErasedRows
from featurestore.database.jobs import (
    ActivateJob,
    AppendJob,
    CatalogueJob,
    DropJob,
    EraseJob,
    FeatureColumn,
    LakeFile,
    MoveJob,
    SchemaJob,
    ViewTable,
)
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

_SQL = Path(__file__).parent / "sql"
_READ = (_SQL / "view_versions.sql").read_text()
_REGISTER = (_SQL / "register_view_version.sql").read_text()
_ACTIVATE = (_SQL / "activate.sql").read_text()
_MISSING = (_SQL / "missing_batches.sql").read_text()


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
        self._erased = ErasedRows(connection)
        self._versions = self._read()
        with transaction(connection):  # the lake may lie elsewhere than last time
            self._lake.check()
            for version in self._versions.values():
                if not version.dropped:
                    self._create_log(version.table)
            self._create_features(self._versions)

    def target(self, name: str) -> Target:
        """Raises JobRefusedError when nothing of that name is registered."""
        if name in SYSTEM_TARGETS:
            return SYSTEM_TARGETS[name]
        return target_of(self._version(name).table)

    def registered(self) -> Mapping[str, str]:
        """The digest of every version that was ever registered, by target; empty for one that was dropped."""
        return {target: "" if one.dropped else one.table.digest for target, one in self._versions.items()}

    def change(self, job: CatalogueJob, commit_seq: int, now: datetime) -> None:
        """Do a job, whole or not at all; `commit_seq` is that of an activation.

        Raises:
            JobRefusedError: a version was registered with other code or dropped, a feature's name or type is taken;
                a version that is to be active by itself is not complete, or one that is to be dropped is active.
        """
        with transaction(self._connection):
            match job:
                case SchemaJob():
                    self._register(job, now)
                case ActivateJob():
                    self._activate(job, commit_seq)
                case DropJob():
                    self._drop(job, now)
            versions = self._read()
            self._create_features(versions)
        self._versions = versions

    def _register(self, job: SchemaJob, now: datetime) -> None:
        wanted = sorted(job.tables, key=lambda table: (table.view, table.version))
        tables = {target: version.table for target, version in self._versions.items()}
        for table in wanted:
            if table.target in self._versions:
                self._version(table.target)
            _check(table, tables)
            tables[table.target] = table
        for table in wanted:
            if table.target not in self._versions:
                self._connection.execute(create_hot_table(table))
                self._create_log(table)
            self._connection.execute(_REGISTER, {**_row(table), "now": now.replace(tzinfo=None)})

    def _activate(self, job: ActivateJob, commit_seq: int) -> None:
        version = self._version(job.target)
        view = version.table.view
        if not job.by_hand:
            if not version.may_activate:
                raise JobRefusedError(f"{job.target} becomes active by hand only: `featurestore views activate`")
            [(missing,)] = self._connection.execute(_MISSING, {"view": view, "target": job.target}).fetchall()
            if missing:
                raise JobRefusedError(f"{job.target} lacks {missing} batches that the active version has")
        self._connection.execute(
            _ACTIVATE,
            {"view": view, "version": version.table.version, "commit_seq": commit_seq, "by_hand": job.by_hand},
        )

    def _drop(self, job: DropJob, now: datetime) -> None:
        version = self._version(job.target)
        view = version.table.view
        others = [one for one in self._versions.values() if one.table.view == view and one is not version]
        if version.active and not all(one.dropped for one in others):
            raise JobRefusedError(f"{job.target} is the active version of {view}; activate another first")
        self._connection.execute(f"DROP VIEW {version.table.relation}")
        self._connection.execute(f"DROP TABLE {version.table.hot_relation}")
        self._connection.execute("DELETE FROM lake_files WHERE target = $target", {"target": job.target})
        self._connection.execute(
            "UPDATE view_versions SET dropped_at = $now, active = false, may_activate = false WHERE target = $target",
            {"target": job.target, "now": now.replace(tzinfo=None)},
        )

    def move(self, job: MoveJob, now: datetime) -> None:
        """Swap rows for files of the lake, in one transaction; a job that was done before changes nothing.

        Raises:
            JobRefusedError: there is no such log or file, or the files do not hold exactly the rows.
        """
        table = self._version(job.target).table
        with transaction(self._connection):
            self._lake.move(job, table, now)
            self._create_log(table)

    def erase(self, job: EraseJob) -> None:
        """Take away what was made of an entity's rows, in one transaction."""
        tables = [one.table for one in self._versions.values() if not one.dropped and one.table.source in job.sources]
        with transaction(self._connection):
            self._erased.erase(job, tables)
            for table in tables:
                self._create_log(table)
        self._erased.committed()

    def without_erased(self, job: AppendJob) -> AppendJob:
        """A checked job without the rows that were erased."""
        return self._erased.without(job)

    def check_lake(self) -> None:
        """Raises TerminalError where the lake's own database was lost."""
        self._lake.check_known()

    def adopt(self, table: ViewTable, files: Sequence[LakeFile], registered_at: datetime, *, active: bool) -> None:
        """Register a version as another database knew it, with the files of the lake that held its rows."""
        with transaction(self._connection):
            self._register(SchemaJob("adopt", (table,)), registered_at)
            self._lake.adopt(table.target, files, registered_at)
            self._create_log(table)
            sql = "UPDATE view_versions SET active = $active, may_activate = false WHERE target = $target"
            self._connection.execute(sql, {"active": active, "target": table.target})
        self._versions = self._read()

    def _create_log(self, table: ViewTable) -> None:
        paths, hides = self._lake.paths(table.target), self._lake.hides(table.target)
        self._connection.execute(create_log_view(table, paths, hides=hides))

    def _create_features(self, versions: Mapping[str, "_Version"]) -> None:
        active = [version.table for version in versions.values() if version.active]
        self._connection.execute(create_features_view(active))

    def _version(self, target: str) -> "_Version":
        version = self._versions.get(target)
        if version is None:
            raise JobRefusedError(
                f"target {target!r} is not registered; `featurestore apply` registers what is declared"
            )
        if version.dropped:
            view, number = version.table.view, version.table.version
            newest = max(one.table.version for one in self._versions.values() if one.table.view == view)
            raise JobRefusedError(f"{view} v{number} was dropped; give {view} version={newest + 1}")
        return version

    def _read(self) -> dict[str, "_Version"]:
        """By target."""
        found = (_version(*row) for row in self._connection.execute(_READ).fetchall())
        return {one.table.target: one for one in found}


@dataclass(frozen=True, slots=True)
class _Version:
    """A registered version; the active one is what readers that name no version get."""

    table: ViewTable
    active: bool
    may_activate: bool
    dropped: bool


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
    may_activate: bool,
    dropped: bool,
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
    return _Version(table, active, may_activate, dropped)


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
