"""Which files of the lake belong to which log, swapped with the rows that they hold."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import duckdb
import msgspec

from featurestore.database.jobs import LakeFile, MoveJob, ViewTable
from featurestore.database.tables import HEAD_TYPES, quoted, read_files, visible
from featurestore.errors import CorruptFileError, JobRefusedError, TerminalError

_INSERT = (
    "INSERT INTO lake_files VALUES ($name, $target, $kind, $day, $bucket, $buckets, $row_count, $size_bytes, "
    "$digest, $now)"
)
# Of each row a number, summed: equal sums and counts mean equal rows, in whatever order.
_COUNTED = "SELECT count(*), coalesce(sum(CAST(hash({columns}) AS HUGEINT)), 0) FROM {rows}"


def landing_days(hot: str) -> str:
    """The ledger lines of a table up to $commit_seq: the day each landed, and its rows.

    Rows that bring their own created_at do not keep a line's rows from staying together: the last one says the day.
    """
    return (
        f"SELECT commit_seq, CAST(max(created_at) AS DATE) AS landing_day, count(*) AS row_count FROM {hot} "
        "WHERE commit_seq <= $commit_seq GROUP BY commit_seq"
    )


def landed_on(hot: str) -> str:
    """The rows of a table of the ledger lines that landed on $day, up to $commit_seq; to be followed by conditions."""
    return f"{hot} WHERE commit_seq IN (SELECT commit_seq FROM ({landing_days(hot)}) WHERE landing_day = $day)"


class _File(msgspec.Struct):
    name: str


class _Log(msgspec.Struct):
    files: list[_File]


class _Manifest(msgspec.Struct):
    """As much of the lake's manifest as is looked at here; see featurestore.offline.manifest."""

    logs: list[_Log]


class LakeFiles:
    """The table lake_files and, with whole paths, the view lake; belongs to the writer's connection and thread."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, root: Path | None) -> None:
        """`root` is the lake's directory, None for a database without a lake."""
        self._connection, self._root = connection, root.absolute() if root else None

    def check(self) -> None:
        """Look whether every file is there; say in the view where that is."""
        where = quoted(f"{self._root or ''}/")
        self._connection.execute(f"CREATE OR REPLACE VIEW lake AS SELECT *, {where} || name AS path FROM lake_files")
        for (path,) in self._connection.execute("SELECT path FROM lake").fetchall():
            if not Path(path).is_file():
                raise CorruptFileError(f"{path} is gone, and rows of the log with it; restore it from a backup")

    def check_known(self) -> None:
        """Look whether a database that lists no file has come to a lake that does: its own file was lost.

        Raises:
            TerminalError: it has; to serve it would hide every row of the lake.
        """
        [(listed,)] = self._connection.execute("SELECT count(*) FROM lake_files").fetchall()
        manifest = self._root / "manifest.json" if self._root else None
        if listed or self._root is None or manifest is None or not manifest.is_file():
            return
        known = msgspec.json.decode(manifest.read_bytes(), type=_Manifest)
        if any((self._root / file.name).is_file() for log in known.logs for file in log.files):
            raise TerminalError(f"the database is new, and {self._root} holds rows of another: `featurestore rebuild`")

    def paths(self, target: str) -> list[str]:
        """The files that hold rows of a log."""
        sql = "SELECT path FROM lake WHERE target = $target AND kind = 'rows' ORDER BY landing_day, path"
        return [path for (path,) in self._connection.execute(sql, {"target": target}).fetchall()]

    def move(self, job: MoveJob, table: ViewTable, now: datetime) -> None:
        """Inside the caller's transaction: the files in, the rows (or other files) out. Raises JobRefusedError."""
        if self._knows(job):
            return
        if job.replaces:
            self._replace(job, table)
        else:
            self._take_out(job, table)
        for file in job.files:
            self._path(file.name)
            self._insert(job.target, file, now)

    def hides(self, target: str) -> bool:
        """Whether files of a log hold rows that were erased."""
        sql = "SELECT count(*) FROM hidden_rows WHERE target = $target"
        [(hidden,)] = self._connection.execute(sql, {"target": target}).fetchall()
        return hidden > 0

    def adopt(self, target: str, files: Sequence[LakeFile], now: datetime) -> None:
        """Inside the caller's transaction: files of another database, with what they say of the ledger."""
        paths: dict[str, list[str]] = {}
        for file in files:
            paths.setdefault(file.kind, []).append(str(self._path(file.name)))
            self._insert(target, file, now)
        for kind, into, more in (
            ("ledger", "applied", ", md5_number_lower(batch_id) AS batch_hash"),
            ("quarantined", "quarantined_rows", ""),
        ):
            if kind in paths:
                rows = read_files(paths[kind], union=True)  # earlier versions wrote fewer columns
                self._connection.execute(f"INSERT INTO {into} BY NAME SELECT *{more} FROM {rows}")
        self._connection.execute("UPDATE applied SET erased = 0 WHERE erased IS NULL")

    def _insert(self, target: str, file: LakeFile, now: datetime) -> None:
        values = {name: getattr(file, name) for name in file.__dataclass_fields__}
        values |= {"target": target, "day": file.day, "now": now.replace(tzinfo=None)}
        self._connection.execute(_INSERT, values)

    def _take_out(self, job: MoveJob, table: ViewTable) -> None:
        """Delete the rows that the files hold, if they hold exactly these."""
        paths = [str(self._path(file.name)) for file in job.files if file.kind == "rows"]
        moved = {"day": job.day, "commit_seq": job.commit_seq}
        columns = ", ".join(_columns(table))
        hot = landed_on(table.hot_relation)
        in_files = self._counted(columns, paths)
        in_table = self._connection.execute(_COUNTED.format(columns=columns, rows=hot), moved).fetchall()
        if in_files != in_table:
            raise JobRefusedError(
                f"{job.target}, {job.day}: the files hold {in_files[0][0]} rows, the log {in_table[0][0]}, or others"
            )
        self._connection.execute(f"DELETE FROM {hot}", moved)

    def _replace(self, job: MoveJob, table: ViewTable) -> None:
        """Take files off the list; what takes their place must hold all of their rows that were not erased."""
        which = {"target": job.target, "names": list(job.replaces)}
        sql = "SELECT kind, path FROM lake WHERE target = $target AND name IN $names"
        found = self._connection.execute(sql, which).fetchall()
        old = [path for kind, path in found if kind == "rows"]
        if job.files:
            if len(found) != len(set(job.replaces)):
                raise JobRefusedError(f"{job.target}: not all of {', '.join(job.replaces)} are in the lake")
            new = [str(self._path(file.name)) for file in job.files if file.kind == "rows"]
            columns = ", ".join(_columns(table))
            if self._counted(columns, new) != self._counted(columns, old, visible_of=job.target):
                raise JobRefusedError(f"{job.target}: the files do not hold the rows of those that they replace")
        if old and self.hides(job.target):
            self._connection.execute(
                f"DELETE FROM hidden_rows AS hidden USING {read_files(old)} AS gone WHERE hidden.target = $target "
                "AND hidden.commit_seq = gone.commit_seq AND hidden.sequence = gone.sequence",
                {"target": job.target},
            )
        self._connection.execute("DELETE FROM lake_files WHERE target = $target AND name IN $names", which)

    def _counted(self, columns: str, paths: Sequence[str], visible_of: str = "") -> list[tuple[int, int]]:
        if not paths:
            return [(0, 0)]
        rows = visible(read_files(paths), visible_of) if visible_of else read_files(paths)
        return self._connection.execute(_COUNTED.format(columns=columns, rows=rows)).fetchall()

    def _knows(self, job: MoveJob) -> bool:
        """Whether the move was done before, and only its reply was lost."""
        names: Sequence[str] = [file.name for file in job.files]
        sql = "SELECT count(*) FROM lake_files WHERE name IN $names AND target = $target"
        [(known,)] = self._connection.execute(sql, {"names": names, "target": job.target}).fetchall()
        return bool(names) and known == len(names)

    def _path(self, name: str) -> Path:
        """Raises JobRefusedError for anything but a file of the lake."""
        if self._root is None:
            raise JobRefusedError("this database has no lake")
        path = self._root / name
        if not path.is_file() or not path.resolve().is_relative_to(self._root.resolve()):
            raise JobRefusedError(f"the lake has no file {name}")
        return path


def _columns(table: ViewTable) -> list[str]:
    return [*HEAD_TYPES, "commit_seq", *(f'"{name}"' for name, _ in table.columns)]
