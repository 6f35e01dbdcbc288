"""The transaction core: write jobs go into the database once, whatever is sent again and however it is grouped."""

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import cast

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.database.catalogue import Catalogue, transaction
from featurestore.database.checks import LINE, checked
from featurestore.database.jobs import (
    AppendJob,
    CatalogueJob,
    EraseJob,
    Job,
    JobReply,
    LakeFile,
    LakeJob,
    LedgerLine,
    MoveJob,
    VacuumJob,
    ViewTable,
)
from featurestore.database.ledger import AppliedBatches, Pair
from featurestore.database.tables import QUARANTINE, QUARANTINED_BY, Target
from featurestore.errors import JobRefusedError, NoSpaceError, TransientError

log = logging.getLogger(__name__)

_LAST_SEQ = """
    SELECT greatest(
        (SELECT coalesce(max(commit_seq), 0) FROM applied), (SELECT coalesce(max(activated_seq), 0) FROM view_versions)
    )
"""


def utc_now() -> datetime:
    return datetime.now(UTC)


class Writer:
    """The only one that changes the database; one thread at a time."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        *,
        lake_dir: Path | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Raises CorruptFileError when a file of the lake is gone."""
        self._connection, self._now = connection, now
        self._catalogue = Catalogue(connection, lake_dir)
        self._applied = AppliedBatches(connection)
        self._last_seq = self._newest_seq()

    def commit(self, jobs: Sequence[Job]) -> list[JobReply]:
        """Do the jobs, in order, and say what became of each; neighbouring appends share a transaction.

        A refused or failing job gets an error reply and changes nothing; it does not keep the others from being done.

        Raises:
            TransientError: the disk is full or does not answer; nothing of the transaction at hand was done, and the
                same jobs may be given again.
            duckdb.FatalException: the database is unusable until it is opened again.
        """
        replies: list[JobReply] = []
        for kind, group in groupby(jobs, key=type):
            if kind is AppendJob:
                replies += self._append(cast("list[AppendJob]", list(group)))
            elif kind is VacuumJob:  # for whoever has the file to do
                replies += [JobReply(job.job_id) for job in group]
            else:
                replies += [self._change(cast("CatalogueJob | LakeJob", job)) for job in group]
        return replies

    def registered(self) -> Mapping[str, str]:
        """The digest of every version that was ever registered, by target; empty for one that was dropped."""
        return self._catalogue.registered()

    def check_lake(self) -> None:
        """Raises TerminalError where the lake's own database was lost."""
        self._catalogue.check_lake()

    def adopt(self, table: ViewTable, files: Sequence[LakeFile], registered_at: datetime, *, active: bool) -> None:
        """As `EmbeddedDatabase.adopt`."""
        self._catalogue.adopt(table, files, registered_at, active=active)
        self._applied.read_hashes()
        self._last_seq = self._newest_seq()

    def close(self) -> None:
        """Let go of the connection, which is not closed for as long as somebody holds it."""
        self._applied.close()

    def _newest_seq(self) -> int:
        [(last,)] = self._connection.execute(_LAST_SEQ).fetchall()
        return last

    def _change(self, job: CatalogueJob | LakeJob) -> JobReply:
        now = self._now()
        commit_seq = self._next_seq(now)
        try:
            with _our_fault():
                match job:
                    case MoveJob():
                        self._catalogue.move(job, now)
                    case EraseJob():
                        self._catalogue.erase(job)
                    case _:
                        self._catalogue.change(job, commit_seq, now)
        except (JobRefusedError, duckdb.Error) as error:
            _raise_if_fatal(error)
            log.warning("%s job refused: %s", job.kind, error, extra={"job_id": job.job_id})
            return JobReply(job.job_id, error=str(error))
        self._last_seq = commit_seq
        return JobReply(job.job_id)

    def _append(self, jobs: Sequence[AppendJob]) -> list[JobReply]:
        try:
            with _our_fault():
                return self._append_together(jobs)
        except duckdb.Error as error:
            _raise_if_fatal(error)
            if len(jobs) == 1:
                log.warning("append failed: %s", type(error).__name__, extra=_ids(jobs[0]))
                retry = isinstance(error, duckdb.OutOfMemoryException)
                return [JobReply(jobs[0].job_id, error=f"failed: {error}", retry=retry)]
            log.warning("a group of %d jobs failed; doing them singly", len(jobs))
            return [reply for job in jobs for reply in self._append([job])]

    def _append_together(self, jobs: Sequence[AppendJob]) -> list[JobReply]:
        with transaction(self._connection):
            known = self._applied.commit_seqs(line.batch_id for job in jobs for line in job.lines)
            group = _Group(known, self._next_seq(self._now()))
            replies = [self._take(job, group) for job in jobs]
            for relation, tables in group.rows.items():
                self._connection.from_arrow(pa.concat_tables(tables)).insert_into(relation)
            self._applied.append(group.ledger, _naive(self._now()))
        self._last_seq = max(self._last_seq, group.next_seq - 1)
        for job, reply in zip(jobs, replies, strict=True):
            if not reply.error:
                log.info("appended %d of %d batches", reply.skipped.count(False), len(job.lines), extra=_ids(job))
        return replies

    def _next_seq(self, now: datetime) -> int:
        return max(self._last_seq + 1, _microseconds(now))

    def _take(self, job: AppendJob, group: "_Group") -> JobReply:
        """Check a job and put what is new of it into the group."""
        try:
            target = self._catalogue.target(job.target)
            job = self._catalogue.without_erased(checked(job, target))
        except JobRefusedError as error:
            log.warning("append refused: %s", error, extra=_ids(job))
            return JobReply(job.job_id, error=str(error))
        seqs, skipped = group.number(job.lines)
        if not all(skipped):
            group.add(target, job, seqs, skipped)
        return JobReply(job.job_id, seqs, skipped)


@dataclass(slots=True)
class _Group:
    """What one transaction will insert. `known` grows with each job, so a pair sent twice in a group is logged once."""

    known: dict[Pair, int]
    next_seq: int
    rows: dict[str, list[pa.Table]] = field(default_factory=dict[str, list[pa.Table]])  # by relation, as stored there
    ledger: list[tuple[LedgerLine, int]] = field(default_factory=list[tuple[LedgerLine, int]])

    def number(self, lines: Sequence[LedgerLine]) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """The commit_seq of each line, and whether it was known before."""
        seqs: list[int] = []
        skipped: list[bool] = []
        for line in lines:
            pair = (line.batch_id, line.target)
            skipped.append(pair in self.known)
            if pair not in self.known:
                self.known[pair] = self.next_seq
                self.ledger.append((line, self.next_seq))
                self.next_seq += 1
            seqs.append(self.known[pair])
        return tuple(seqs), tuple(skipped)

    def add(self, target: Target, job: AppendJob, seqs: Sequence[int], skipped: Sequence[bool]) -> None:
        """The rows of the lines that are new; `line` gives way to what is stored instead."""
        rows, quarantined = (_new_rows(table, skipped) for table in (job.rows, job.quarantined))
        self._add(target.relation, rows, target.stored, {"commit_seq": pa.array(seqs, pa.int64())})
        ids = {name: pa.array([getattr(line, name) for line in job.lines], pa.string()) for name in QUARANTINED_BY}
        self._add("quarantined_rows", quarantined, (*QUARANTINED_BY, *QUARANTINE), ids)

    def _add(self, relation: str, rows: pa.Table, stored: Sequence[str], by_line: Mapping[str, pa.Array]) -> None:
        if rows.num_rows:
            for name, values in by_line.items():
                rows = rows.append_column(name, pc.take(values, rows[LINE]))
            self.rows.setdefault(relation, []).append(rows.select(stored))


def _new_rows(table: pa.Table, skipped: Sequence[bool]) -> pa.Table:
    if not any(skipped):
        return table
    return table.filter(pc.take(pa.array([not one for one in skipped]), table[LINE]))


@contextmanager
def _our_fault() -> Generator[None]:
    """Errors of the machine are nobody's job: they are raised as transient and no job is blamed for them."""
    try:
        yield
    except (duckdb.IOException, duckdb.TransactionException) as error:
        if "no space left" in str(error).lower():
            raise NoSpaceError(f"the disk of the database is full: {error}") from error
        raise TransientError(f"the database cannot write: {error}") from error


def _raise_if_fatal(error: Exception) -> None:
    if isinstance(error, duckdb.FatalException | duckdb.InternalException):
        raise error


def _ids(job: AppendJob) -> dict[str, object]:
    """Of a line of the log."""
    return {"job_id": job.job_id, "target": job.target, "batch_ids": [line.batch_id for line in job.lines]}


def _microseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000)


def _naive(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(tzinfo=None)
