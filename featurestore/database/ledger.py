"""The ledger as its only writer sees it: which pairs are in it, and new lines for it."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import duckdb

from featurestore.database.jobs import LedgerLine
from featurestore.entity_id import hash64

Pair = tuple[str, str]  # (batch_id, target)

_COLUMNS = (
    *("batch_id", "target", "commit_seq", "rows_in", "logged", "filtered", "quarantined", "erased"),
    *("applied_at", "batch_hash"),
)
_KNOWN = """
    SELECT batch_id, target, commit_seq FROM applied WHERE batch_hash IN (SELECT unnest(CAST($hashes AS UBIGINT[])))
"""
_RECENT = 100_000  # hashes kept apart from the sorted ones


class AppliedBatches:
    """The table `applied`; belongs to the writer's connection and thread.

    It is never pruned, so a batch is not looked for there unless its hash is known, at eight bytes of memory a line.
    A hash is known from before its line is committed; one that is not in the table after all does no harm.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._appender = connection.appender("applied", columns=list(_COLUMNS))
        self.read_hashes()

    def read_hashes(self) -> None:
        """To be called when lines came in another way."""
        found = self._connection.sql("SELECT batch_hash FROM applied ORDER BY ALL").to_arrow_table()
        self._sorted: Any = found["batch_hash"].to_numpy()
        self._recent: set[int] = set()

    def commit_seqs(self, batch_ids: Iterable[str]) -> dict[Pair, int]:
        """Of the pairs (and perhaps of others) that are in the ledger."""
        hashes = [number for number in map(hash64, batch_ids) if self._is_known(number)]
        if not hashes:
            return {}
        found = self._connection.execute(_KNOWN, {"hashes": hashes}).fetchall()
        return {(batch_id, target): commit_seq for batch_id, target, commit_seq in found}

    def append(self, lines: Sequence[tuple[LedgerLine, int]], now: datetime) -> None:
        """Inside the caller's transaction: lines with their commit_seq; `now` is naive UTC."""
        if len(self._recent) > _RECENT:
            self.read_hashes()
        rows = [
            (
                one.batch_id,
                one.target,
                commit_seq,
                one.rows_in,
                one.logged,
                one.filtered,
                one.quarantined,
                one.erased,
                now,
                hash64(one.batch_id),
            )
            for one, commit_seq in lines
        ]
        self._recent.update(batch_hash for *_, batch_hash in rows)
        self._appender.clear()  # what a transaction left that failed
        self._appender.append_rows(rows)
        self._appender.flush()

    def close(self) -> None:
        """Let go of the connection."""
        del self._appender

    def _is_known(self, number: int) -> bool:
        if number in self._recent:
            return True
        at = bisect_left(self._sorted, number)
        return at < len(self._sorted) and int(self._sorted[at]) == number
