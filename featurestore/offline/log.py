"""The ledger: which batches are in which target, and what became of their rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from featurestore.database.client import Database

_SQL = Path(__file__).parent / "sql"
_NEWS = (_SQL / "ledger_news.sql").read_text()
_ACCOUNTING = (_SQL / "accounting.sql").read_text()
_REGISTERED = "SELECT target, registered_at FROM view_versions"
_ONE = """
SELECT batch_id, target, commit_seq, rows_in, logged, filtered, quarantined, erased, applied_at FROM applied
WHERE batch_id = $batch_id AND target = $target
"""
_LAST = "SELECT epoch, (SELECT max(commit_seq) FROM applied WHERE target = $target) AS line FROM store_info"
_PAGE_ROWS = 100_000

Pair = tuple[str, str]  # (batch_id, target)


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """What became of one batch in one target."""

    batch_id: str
    target: str
    commit_seq: int
    rows_in: int
    logged: int
    filtered: int
    quarantined: int
    erased: int
    applied_at: datetime


class Ledger:
    """A copy of the ledger that is brought up to date by what is new. Not thread-safe.

    Which database it is is read with the news: after a rebuild, a restore or an erasure, which changes earlier lines,
    the copy starts anew.
    """

    def __init__(self) -> None:
        self.epoch = ""  # of the database; an erasure leaves it as it is
        self._erasures = 0
        self._rows: dict[Pair, LedgerRow] = {}
        self._by_target: dict[str, list[LedgerRow]] = {}
        self._last = 0

    @property
    def rows(self) -> Mapping[Pair, LedgerRow]:
        return MappingProxyType(self._rows)

    def lines(self, target: str) -> list[LedgerRow]:
        """In commit_seq order."""
        return list(self._by_target.get(target, ()))

    def refresh(self, database: Database) -> None:
        """Read what was committed since the last time. Raises TransientError when the database does not answer."""
        while self._read_page(database):
            pass

    def _read_page(self, database: Database) -> bool:
        """Return whether there may be more."""
        news = read_news(database, self._last, _PAGE_ROWS)
        if (news.epoch, news.erasures) != (self.epoch, self._erasures):
            fresh = self._last == 0
            self.epoch, self._erasures = news.epoch, news.erasures
            self._rows, self._by_target, self._last = {}, {}, 0
            if not fresh:
                return True  # what was asked for was beyond another database's end, or what lies before it has changed
        for one in news.rows:
            self._add(one)
        return len(news.rows) == _PAGE_ROWS

    def _add(self, row: LedgerRow) -> None:
        self._rows[row.batch_id, row.target] = row
        self._by_target.setdefault(row.target, []).append(row)
        self._last = row.commit_seq


@dataclass(frozen=True, slots=True)
class News:
    """What was committed after some commit_seq."""

    epoch: str  # which database it is: another one after a rebuild or a restore
    erasures: int  # that there were; each may have changed any line
    rows: list[LedgerRow]


def read_news(database: Database, last: int, page_rows: int) -> News:
    """The ledger lines after the commit_seq `last`, in order, at most `page_rows`."""
    lines = database.query(_NEWS, {"last": last, "page": page_rows}, into=_Line)
    rows = [one.row() for one in lines if one.batch_id is not None]
    return News(lines[0].epoch, lines[0].erasures, rows)


def ledger_row(database: Database, batch_id: str, target: str) -> LedgerRow | None:
    """What became of one batch in one target; None while it is not applied."""
    rows = database.query(_ONE, {"batch_id": batch_id, "target": target}, into=LedgerRow)
    return rows[0] if rows else None


def last_line(database: Database, target: str) -> tuple[str, int]:
    """The database's epoch, and the commit_seq of the target's last ledger line; 0 without any."""
    [found] = database.query(_LAST, {"target": target}, into=_Last)
    return found.epoch, found.line or 0


@dataclass(frozen=True, slots=True)
class TargetCounts:
    """The sums of a target's ledger lines: rows_in = logged + filtered + quarantined + erased."""

    target: str
    batches: int
    rows_in: int
    logged: int
    filtered: int
    quarantined: int
    erased: int
    newest_applied_at: datetime | None


def registered(database: Database) -> Mapping[str, datetime]:
    """When each target was first registered; a new view starts with the batches that landed from then on."""
    return {one.target: one.registered_at for one in database.query(_REGISTERED, into=_Registered)}


def accounting(database: Database) -> list[TargetCounts]:
    """The sums per registered target, those without a batch too."""
    return database.query(_ACCOUNTING, into=TargetCounts)


@dataclass(frozen=True, slots=True)
class _Last:
    epoch: str
    line: int | None


@dataclass(frozen=True, slots=True)
class _Registered:
    target: str
    registered_at: datetime


@dataclass(frozen=True, slots=True)
class _Line:
    """A row of sql/ledger_news.sql; without news there is one row, without a line."""

    epoch: str
    erasures: int
    batch_id: str | None
    target: str
    commit_seq: int
    rows_in: int
    logged: int
    filtered: int
    quarantined: int
    erased: int
    applied_at: datetime

    def row(self) -> LedgerRow:
        return LedgerRow(
            self.batch_id or "",
            self.target,
            self.commit_seq,
            self.rows_in,
            self.logged,
            self.filtered,
            self.quarantined,
            self.erased,
            self.applied_at,
        )
