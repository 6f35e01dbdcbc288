"""Rows of the log at one moment: what a training set is made from.

The moment is a commit_seq. The log only grows, and what is committed later has a larger one, so rows up to it are the
same whenever and however often they are read. Rows that DuckDB holds come in pages, each well within what the database
service answers; those in the lake are read from its files, in this process, where it can reach them. What becomes of
them as they come in is for `held` to say.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa

from featurestore.database.client import Database
from featurestore.database.tables import read_files, visible
from featurestore.definitions.names import check_name
from featurestore.entity_id import hash64
from featurestore.errors import CorruptFileError, TransientError
from featurestore.offline.held import Held
from featurestore.offline.relations import hot_relation, log_relation
from featurestore.order import HEAD

Progress = Callable[[str, int, int], None]  # what is being done, how much of it is done, of how much

FEW_ENTITIES = 1_000  # up to so many, the database looks for their rows alone

_PAGE_BYTES = 64 * 2**20  # a quarter of what the service answers by default, because texts are guessed
_VALUE_BYTES, _HEAD_BYTES = 32, 96

_FILES_ROWS = 2_000_000  # of the lake, read at a time

_TRIES = 5  # a move to the lake that ends between two looks makes us look again

_PAGES = """
    SELECT min(commit_seq) AS first, max(commit_seq) AS last, CAST(sum(logged) AS BIGINT) AS "rows" FROM (
        SELECT commit_seq, logged, (sum(logged) OVER (ORDER BY commit_seq) - logged) // $page_rows AS page
        FROM (SELECT commit_seq, count(*) AS logged FROM {relation} WHERE commit_seq <= $commit_seq GROUP BY commit_seq)
    ) GROUP BY page ORDER BY page
"""
_LAKE = """
    SELECT path, bucket, buckets, row_count, (SELECT count(*) FROM hidden_rows WHERE target = $target) AS hidden
    FROM lake WHERE target = $target AND kind = 'rows' ORDER BY path
"""
_HIDDEN = "SELECT target, commit_seq, sequence FROM hidden_rows WHERE target = $target"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSlice:
    """Which rows of a view's log are wanted. More may come where that is cheaper; bounds that are None do not bound."""

    target: str  # <view>@v<version>
    columns: Sequence[str]
    after: datetime | None = None  # event_timestamp, exclusive
    until: datetime | None = None  # event_timestamp, inclusive
    created_until: datetime | None = None
    entity_ids: Sequence[str] | None = None
    hold: Callable[[], Held] = Held

    @property
    def names(self) -> str:
        """The columns that are read, as SQL lists them."""
        for name in self.columns:
            check_name(name, "column")  # a receipt's text becomes SQL here
        return ", ".join([*HEAD, *(f'"{name}"' for name in self.columns)])

    @property
    def few(self) -> Sequence[str] | None:
        """The entities, if they are so few that asking for them alone pays."""
        return self.entity_ids if self.entity_ids is not None and len(self.entity_ids) <= FEW_ENTITIES else None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Rows by target (order.HEAD and the columns, in no order), as of `commit_seq`."""

    commit_seq: int
    held: Mapping[str, Held]

    @property
    def logs(self) -> Mapping[str, pa.Table]:
        """All of them, in memory."""
        return {target: held.table() for target, held in self.held.items()}


def fetch(
    database: Database, slices: Sequence[LogSlice], commit_seq: int | None = None, *, progress: Progress
) -> Snapshot:
    """Read the slices as of `commit_seq`, or of now.

    Raises:
        QueryError: a table or column is not there (any more).
        TransientError: the database does not answer in time.
    """
    pin = newest_commit_seq(database) if commit_seq is None else commit_seq
    return Snapshot(pin, {one.target: _fetch(database, one, pin, progress) for one in slices})


def newest_commit_seq(database: Database) -> int:
    """The moment that is now; everything up to it is committed."""
    [newest] = database.query("SELECT coalesce(max(commit_seq), 0) AS commit_seq FROM applied", into=_Newest)
    return newest.commit_seq


def page_rows(columns: int) -> int:
    """How many rows of the log, with so many columns beside the head, are asked for at a time."""
    return max(1, _PAGE_BYTES // (_HEAD_BYTES + _VALUE_BYTES * columns))


def _fetch(database: Database, wanted: LogSlice, commit_seq: int, progress: Progress) -> Held:
    """Hot and cold. Rows move in one direction only, and with each move the list of files changes: if it is the same
    before and after, no row was missed or read twice."""
    for _ in range(_TRIES):
        held = wanted.hold()
        files = _lake_files(database, wanted)
        if not all(file.is_here for file in files):  # another machine: the service reads them for us
            held.add(_read_pages(database, wanted, log_relation(wanted.target), commit_seq, progress))
            return held
        held.add(_read_pages(database, wanted, hot_relation(wanted.target), commit_seq, progress))
        try:
            hidden = database.query_arrow(_HIDDEN, {"target": wanted.target}) if files and files[0].hidden else None
            held.add(_read_files(wanted, files, commit_seq, hidden, progress))
        except duckdb.Error as error:
            if _lake_files(database, wanted) == files:
                raise CorruptFileError(f"the lake cannot be read: {error}") from error
            continue
        if _lake_files(database, wanted) == files:
            return held
    raise TransientError(f"rows of {wanted.target} go on moving to the lake; try again")


def _lake_files(database: Database, wanted: LogSlice) -> list["_LakeFile"]:
    return database.query(_LAKE, {"target": wanted.target}, into=_LakeFile)


def _read_files(
    wanted: LogSlice, files: Sequence["_LakeFile"], commit_seq: int, hidden: pa.Table | None, progress: Progress
) -> Iterator[pa.Table]:
    """What is in the lake, read in this process, some files at a time; `hidden` are rows that were erased."""
    hashes = None if wanted.few is None else [hash64(one) for one in wanted.few]
    chosen = [one for one in files if hashes is None or any(number % one.buckets == one.bucket for number in hashes)]
    conditions, bounds = _conditions(wanted)
    where = " AND ".join(["commit_seq <= $commit_seq", *conditions])
    params = {"commit_seq": commit_seq, **{name: _naive(value) for name, value in bounds.items()}}
    done, rows = 0, sum(one.row_count for one in chosen)
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")  # progress is told by `progress`
        if hidden is not None:
            connection.register("hidden_rows", hidden)
        for some in _some_rows(chosen):
            progress(f"read {wanted.target} in the lake", done, rows)
            source = read_files([one.path for one in some])
            if hidden is not None:
                source = visible(source, wanted.target)
            yield connection.sql(f"SELECT {wanted.names} FROM {source} WHERE {where}", params=params).to_arrow_table()
            done += sum(one.row_count for one in some)
    if rows:
        progress(f"read {wanted.target} in the lake", rows, rows)


def _some_rows(files: Sequence["_LakeFile"]) -> Iterator[list["_LakeFile"]]:
    """Files of about _FILES_ROWS together."""
    some: list[_LakeFile] = []
    for file in files:
        some.append(file)
        if sum(one.row_count for one in some) >= _FILES_ROWS:
            yield some
            some = []
    if some:
        yield some


def _naive(value: datetime | list[str]) -> datetime | list[str]:
    """Times as TIMESTAMP columns have them."""
    return value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) else value


def _read_pages(
    database: Database, wanted: LogSlice, relation: str, commit_seq: int, progress: Progress
) -> Iterator[pa.Table]:
    """What the service has; a page is a range of ledger lines, and part of their rows where lines are long."""
    conditions, bounds = _conditions(wanted)
    where = " AND ".join(["commit_seq BETWEEN $first AND $last", "sequence % $parts = $part", *conditions])
    select = f"SELECT {wanted.names} FROM {relation} WHERE {where}"
    limits = {"commit_seq": commit_seq, "page_rows": page_rows(len(wanted.columns))}
    pages = database.query(_PAGES.format(relation=relation), limits, into=_Page)
    if not pages:  # the types are wanted all the same
        yield database.query_arrow(f"SELECT {wanted.names} FROM {relation} LIMIT 0")
    done, rows = 0, sum(page.rows for page in pages)
    for page in pages:
        progress(f"read {wanted.target}", done, rows)
        parts = -(-page.rows // limits["page_rows"])
        for part in range(parts):
            params = {**bounds, "first": page.first, "last": page.last, "parts": parts, "part": part}
            yield database.query_arrow(select, params)
        done += page.rows
    progress(f"read {wanted.target}", done, rows)


def _conditions(wanted: LogSlice) -> tuple[list[str], dict[str, datetime | list[str]]]:
    conditions: list[str] = []
    bounds: dict[str, datetime | list[str]] = {}
    for condition, name, value in (
        ("event_timestamp > $after", "after", wanted.after),
        ("event_timestamp <= $until", "until", wanted.until),
        ("created_at <= $created_until", "created_until", wanted.created_until),
    ):
        if value is not None:
            conditions.append(condition)
            bounds[name] = value
    if wanted.few is not None:
        conditions.append("entity_id IN $entity_ids")
        bounds["entity_ids"] = list(wanted.few)
    return conditions, bounds


@dataclass(frozen=True, slots=True)
class _Newest:
    commit_seq: int


@dataclass(frozen=True, slots=True)
class _Page:
    first: int
    last: int
    rows: int


@dataclass(frozen=True, slots=True)
class _LakeFile:
    path: str
    bucket: int
    buckets: int
    row_count: int
    hidden: int  # rows of the log that its files hold, and that were erased

    @property
    def is_here(self) -> bool:
        """Whether this process can read it."""
        return Path(self.path).is_file()
