"""The one way from landed batches to the log and the online store: of sensor runs, backfills, materialize() and tests.

Log first, then Redis: a crash in between leaves a ledger line that Redis does not list as pushed, and the batch is
applied again, which changes nothing in the log and fills Redis.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

import pyarrow as pa

from featurestore.database.client import Database
from featurestore.database.jobs import AppendJob, LedgerLine
from featurestore.definitions.view import FeatureView
from featurestore.landing.batch import Batch
from featurestore.landing.zone import LandingZone
from featurestore.offline.tiles import touched_tiles
from featurestore.online.store import OnlineStore
from featurestore.online.values import PutCounts
from featurestore.transform.rows import FeatureRows, feature_rows

JOB_ROWS = 200_000  # of one write job, at least one batch; bounds the memory of a run


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What became of the batches: rows_in = logged + filtered + quarantined + erased, whether they were new or not."""

    new_batches: int = 0
    skipped_batches: int = 0  # already in the ledger
    rows_in: int = 0
    logged: int = 0
    filtered: int = 0
    quarantined: int = 0
    erased: int = 0
    written: int = 0  # entities whose online values were replaced
    stale: int = 0  # entities whose online values are newer
    tiles: int = 0  # of windows that were replaced
    newest_event_timestamp: datetime | None = None
    warnings: Mapping[str, int] = field(default_factory=dict[str, int])
    job_ids: tuple[str, ...] = ()  # of the write jobs

    def __add__(self, other: "Applied") -> "Applied":
        times = [t for t in (self.newest_event_timestamp, other.newest_event_timestamp) if t is not None]
        return Applied(
            new_batches=self.new_batches + other.new_batches,
            skipped_batches=self.skipped_batches + other.skipped_batches,
            rows_in=self.rows_in + other.rows_in,
            logged=self.logged + other.logged,
            filtered=self.filtered + other.filtered,
            quarantined=self.quarantined + other.quarantined,
            erased=self.erased + other.erased,
            written=self.written + other.written,
            stale=self.stale + other.stale,
            tiles=self.tiles + other.tiles,
            newest_event_timestamp=max(times, default=None),
            warnings=Counter(self.warnings) + Counter(other.warnings),
            job_ids=self.job_ids + other.job_ids,
        )


def apply_batches(
    view: FeatureView,
    batches: Sequence[Batch],
    zone: LandingZone,
    database: Database,
    online: OnlineStore | None,
    look: Callable[[pa.Table], None] | None = None,
) -> Applied:
    """Log the batches' feature rows and push the online ones; doing it again changes nothing. `look` is shown the rows.

    Raises:
        CorruptFileError: a landed file is damaged.
        JobRefusedError: the log has this version with another digest.
        TransientError: a service does not answer; apply the same batches again.
    """
    total = Applied()
    for group in _groups(batches):
        made = [(batch, feature_rows(view, zone.read(batch), batch)) for batch in group]
        if look is not None:
            for _, rows in made:
                look(rows.rows)
        total += _apply_group(view, made, database, online)
    return total


def _groups(batches: Sequence[Batch]) -> Iterator[list[Batch]]:
    """Batches of about JOB_ROWS rows together, in order."""
    group: list[Batch] = []
    rows = 0
    for batch in batches:
        if group and rows + batch.rows > JOB_ROWS:
            yield group
            group, rows = [], 0
        group.append(batch)
        rows += batch.rows
    if group:
        yield group


def _apply_group(
    view: FeatureView, made: Sequence[tuple[Batch, FeatureRows]], database: Database, online: OnlineStore | None
) -> Applied:
    lines = tuple(_ledger_line(view, batch, rows) for batch, rows in made)
    job = AppendJob(
        job_id=sha256("\n".join([view.target, view.digest, *(line.batch_id for line in lines)]).encode()).hexdigest(),
        target=view.target,
        lines=lines,
        rows=_numbered([rows.rows for _, rows in made]),
        quarantined=_numbered([rows.quarantined for _, rows in made]),
    )
    reply = database.append(job)
    put = PutCounts()
    if online is not None and view.online_features:
        tiles = list(touched_tiles(database, view, job.rows, reply.commit_seqs))
        put = online.push(view, job.rows, reply.commit_seqs, tiles=pa.concat_tables(tiles) if tiles else None)
    return Applied(
        new_batches=reply.skipped.count(False),
        skipped_batches=reply.skipped.count(True),
        rows_in=sum(line.rows_in for line in lines),
        logged=sum(line.logged for line in lines),
        filtered=sum(line.filtered for line in lines),
        quarantined=sum(line.quarantined for line in lines),
        erased=sum(line.erased for line in lines),
        written=put.written,
        stale=put.stale,
        tiles=put.tiles,
        newest_event_timestamp=max((b.max_event_timestamp for b, _ in made if b.max_event_timestamp), default=None),
        warnings=sum((Counter(rows.warnings) for _, rows in made), Counter[str]()),
        job_ids=(job.job_id,),
    )


def _ledger_line(view: FeatureView, batch: Batch, rows: FeatureRows) -> LedgerLine:
    return LedgerLine(
        batch_id=batch.batch_id,
        target=view.target,
        code_digest=view.digest,
        rows_in=batch.rows,
        logged=rows.rows.num_rows,
        filtered=rows.filtered,
        quarantined=rows.quarantined.num_rows,
        erased=batch.rows - rows.rows_in,
    )


def _numbered(tables: Sequence[pa.Table]) -> pa.Table:
    """One table, each row with the number of its ledger line."""
    numbered = [
        table.append_column("line", pa.repeat(pa.scalar(number, pa.int32()), table.num_rows))
        for number, table in enumerate(tables)
    ]
    return pa.concat_tables(numbered).combine_chunks()
