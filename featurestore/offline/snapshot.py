"""Rows of the log at one moment: what a training set is made from.

The moment is a commit_seq. The log only grows, and what is committed later has a larger one, so rows up to it are the
same whenever and however often they are read. They come in pages, each well within what the database service answers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from featurestore.database.client import Database
from featurestore.definitions.names import check_name
from featurestore.order import HEAD

Progress = Callable[[str, int, int], None]  # what is being done, how much of it is done, of how much

FEW_ENTITIES = 1_000  # up to so many, the database looks for their rows alone

_PAGE_BYTES = 64 * 2**20  # a quarter of what the service answers by default, because texts are guessed
_VALUE_BYTES, _HEAD_BYTES = 32, 96

_PAGES = """
    SELECT min(commit_seq) AS first, max(commit_seq) AS last, CAST(sum(logged) AS BIGINT) AS "rows" FROM (
        SELECT commit_seq, logged, (sum(logged) OVER (ORDER BY commit_seq) - logged) // $page_rows AS page
        FROM applied WHERE target = $target AND logged > 0 AND commit_seq <= $commit_seq
    ) GROUP BY page ORDER BY page
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSlice:
    """Which rows of a view's log are wanted. More may come where that is cheaper; bounds that are None do not bound."""

    target: str  # <view>@v<version>
    columns: Sequence[str]
    after: datetime | None = None  # event_timestamp, exclusive
    until: datetime | None = None  # event_timestamp, inclusive
    created_until: datetime | None = None
    entity_ids: Sequence[str] | None = None

    @property
    def relation(self) -> str:
        view, _, version = self.target.partition("@v")
        check_name(view, "view")  # a receipt's text becomes SQL here
        return f'log."{view}_v{int(version)}"'


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Rows by target (order.HEAD and the columns, in no order), as of `commit_seq`."""

    commit_seq: int
    logs: Mapping[str, pa.Table]


def fetch(
    database: Database, slices: Sequence[LogSlice], commit_seq: int | None = None, *, progress: Progress
) -> Snapshot:
    """Read the slices as of `commit_seq`, or of now.

    Raises:
        QueryError: a table or column is not there (any more).
        TransientError: the database does not answer in time.
    """
    pin = _newest_commit_seq(database) if commit_seq is None else commit_seq
    return Snapshot(pin, {one.target: _fetch_hot(database, one, pin, progress) for one in slices})


def _newest_commit_seq(database: Database) -> int:
    [newest] = database.query("SELECT coalesce(max(commit_seq), 0) AS commit_seq FROM applied", into=_Newest)
    return newest.commit_seq


def _fetch_hot(database: Database, wanted: LogSlice, commit_seq: int, progress: Progress) -> pa.Table:
    """What is in DuckDB; a page is a range of ledger lines, and part of their rows where lines are long."""
    names = ", ".join([*HEAD, *(f'"{_checked(name)}"' for name in wanted.columns)])
    conditions, bounds = _conditions(wanted)
    select = f"SELECT {names} FROM {wanted.relation} WHERE {' AND '.join(conditions)}"
    page_rows = _PAGE_BYTES // (_HEAD_BYTES + _VALUE_BYTES * len(wanted.columns))
    pages = database.query(
        _PAGES, {"target": wanted.target, "commit_seq": commit_seq, "page_rows": page_rows}, into=_Page
    )
    tables: list[pa.Table] = []
    done, rows = 0, sum(page.rows for page in pages)
    for page in pages:
        progress(f"read {wanted.target}", done, rows)
        parts = -(-page.rows // page_rows)
        for part in range(parts):
            params = {**bounds, "first": page.first, "last": page.last, "parts": parts, "part": part}
            tables.append(database.query_arrow(select, params))
        done += page.rows
    progress(f"read {wanted.target}", done, rows)
    if not tables:  # the types are wanted all the same
        tables.append(database.query_arrow(f"SELECT {names} FROM {wanted.relation} LIMIT 0"))
    return pa.concat_tables(tables)


def _conditions(wanted: LogSlice) -> tuple[list[str], dict[str, datetime | list[str]]]:
    conditions = ["commit_seq BETWEEN $first AND $last", "sequence % $parts = $part"]
    bounds: dict[str, datetime | list[str]] = {}
    for condition, name, value in (
        ("event_timestamp > $after", "after", wanted.after),
        ("event_timestamp <= $until", "until", wanted.until),
        ("created_at <= $created_until", "created_until", wanted.created_until),
    ):
        if value is not None:
            conditions.append(condition)
            bounds[name] = value
    if wanted.entity_ids is not None and len(wanted.entity_ids) <= FEW_ENTITIES:
        conditions.append("entity_id IN $entity_ids")
        bounds["entity_ids"] = list(wanted.entity_ids)
    return conditions, bounds


def _checked(column: str) -> str:
    check_name(column, "column")
    return column


@dataclass(frozen=True, slots=True)
class _Newest:
    commit_seq: int


@dataclass(frozen=True, slots=True)
class _Page:
    first: int
    last: int
    rows: int
