"""Making training sets: plan → rows of the log → kernel → derived features, and the receipt."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, cast

import pyarrow as pa

from featurestore.database.client import Database
from featurestore.errors import SpineError, TerminalError
from featurestore.landing.batch import from_micros, to_micros
from featurestore.offline.snapshot import FEW_ENTITIES, LogSlice, Progress, Snapshot, fetch
from featurestore.offline.versions import logged_versions
from featurestore.training.diff import Difference, difference
from featurestore.training.digest import table_digest
from featurestore.training.kernel import Join
from featurestore.training.pit_plan import PitPlan, ViewRead
from featurestore.training.receipt import Receipt, ViewInput
from featurestore.training.spine import ArrowStream, Spine, read_spine
from featurestore.training.statistics import column_statistics
from featurestore.training.training_set import TrainingSet

_ERASED = """
    SELECT entity, count(DISTINCT erased_at) AS erasures, max(erased_at) AS last FROM erasures
    WHERE epoch_us(erased_at) > $commit_seq GROUP BY entity ORDER BY entity
"""


def quiet(done: str, step: int, steps: int) -> None:
    """Progress nobody looks at."""


def build(
    database: Database,
    plan: PitPlan,
    stream: ArrowStream,
    *,
    time: str,
    time_zone: str | None,
    commit_seq: int | None = None,
    progress: Progress = quiet,
) -> TrainingSet:
    """Read what the plan needs as of `commit_seq` (None: of now) and join it to the spine, in this process.

    One row out per row in, in the spine's order, the spine's own columns first. The same plan, spine and commit_seq
    give the same content, to the bit.

    Raises:
        SpineError: the spine cannot be joined; the message names column and row.
        TransientError: the database does not answer in time.
    """
    spine = read_spine(stream, plan.keys, time=time, time_zone=time_zone)
    _check_columns(spine, plan)
    join = Join(plan, spine)
    slices = [_slice(plan, view, spine, join) for view in plan.views]
    snapshot = fetch(database, slices, commit_seq, progress=progress)
    found = join.columns(snapshot.held, progress)
    columns = {name: found[target, name] for target, name in plan.features}
    table = spine.table
    for name, column in columns.items():
        table = table.append_column(name, column)
    receipt = Receipt(
        plan=plan,
        commit_seq=snapshot.commit_seq,
        time=time,
        time_zone=time_zone,
        spine=table_digest(spine.table),
        inputs=_inputs(plan, snapshot),
        statistics={name: column_statistics(column) for name, column in columns.items()},
        rows=table.num_rows,
        sha256=table_digest(table),
    )
    return TrainingSet(table, receipt)


def reproduce(database: Database, receipt: Receipt, stream: ArrowStream, *, progress: Progress = quiet) -> TrainingSet:
    """Make the training set of a receipt again from its spine (or from the set itself), whatever has happened since.

    Raises:
        SpineError: it is not the same spine.
        TerminalError: the content is not the same; rows of the log it was made of are gone or changed.
    """
    given = pa.table(cast(Any, stream))
    features = [name for name in receipt.features if name in given.column_names]
    spine = read_spine(given.drop_columns(features), (), time=receipt.time, time_zone=receipt.time_zone)
    if table_digest(spine.table) != receipt.spine:
        raise SpineError(
            "this is not the spine of the receipt: its content has changed; the training set itself will do instead"
        )
    _check_kept(database, receipt.plan)
    made = build(
        database,
        receipt.plan,
        spine.table,
        time=receipt.time,
        time_zone=receipt.time_zone,
        commit_seq=receipt.commit_seq,
        progress=progress,
    )
    if made.receipt.sha256 != receipt.sha256:
        differing = [name for name in receipt.features if made.receipt.statistics[name] != receipt.statistics.get(name)]
        raise TerminalError(
            f"the content differs from the receipt's (sha256 {made.receipt.sha256[:12]}… instead of "
            f"{receipt.sha256[:12]}…){', in ' + ', '.join(differing) if differing else ''}; "
            f"{_why_not(database, receipt)}"
        )
    return made


def _why_not(database: Database, receipt: Receipt) -> str:
    """Why a training set cannot be made as it was, as far as the database knows."""
    return (
        _erased_since(database, receipt)
        or _rebuilt_since(database, receipt)
        or "rows that it was made of are no longer in the log as they were"
    )


def _rebuilt_since(database: Database, receipt: Receipt) -> str:
    """Rows that a rebuild applied once more are behind every moment that an older receipt can pin."""
    [made] = database.query("SELECT created_at FROM store_info", into=_Made)
    if to_micros(made.created_at) <= receipt.commit_seq:
        return ""
    return (
        f"this database was made on {made.created_at:%Y-%m-%d %H:%M} UTC, after the set: it was rebuilt, or is another "
        "one. Of older rows, the set's commit_seq finds only those that were in the lake by then; make a new set"
    )


@dataclass(frozen=True, slots=True)
class _Made:
    created_at: datetime


def _erased_since(database: Database, receipt: Receipt) -> str:
    """What was erased after the moment that a receipt pins, of any kind; who it was is known nowhere."""
    found = database.query(_ERASED, {"commit_seq": receipt.commit_seq}, into=_Erased)
    said = [
        f"{one.erasures} {'entity' if one.erasures == 1 else 'entities'} of kind {one.entity} "
        f"{'was' if one.erasures == 1 else 'were'} erased since, the last on {one.last:%Y-%m-%d %H:%M} UTC"
        for one in found
    ]
    return " and ".join(said) + ": it cannot be made as it was" if said else ""


@dataclass(frozen=True, slots=True)
class _Erased:
    entity: str
    erasures: int
    last: datetime


@dataclass(frozen=True, slots=True)
class Changes:
    """A training set then and now, and the cells that differ."""

    then: TrainingSet
    now: TrainingSet
    difference: Difference


def changes(database: Database, receipt: Receipt, stream: ArrowStream, *, progress: Progress = quiet) -> Changes:
    """Compare the training set of a receipt to what its plan and spine give now. Raises as `reproduce` does."""
    then = reproduce(database, receipt, stream, progress=progress)
    spine = then.table.drop_columns(list(receipt.features))
    now = build(database, receipt.plan, spine, time=receipt.time, time_zone=receipt.time_zone, progress=progress)
    return Changes(then, now, difference(then.table, now.table))


def _check_kept(database: Database, plan: PitPlan) -> None:
    """Say which versions of views are gone, before a database says which tables it does not know."""
    kept = {one.target for one in logged_versions(database) if not one.dropped}
    gone = sorted({view.target for view in plan.views} - kept)
    if gone:
        raise TerminalError(f"the log no longer has {', '.join(gone)}; what was made of it cannot be made again")


def _check_columns(spine: Spine, plan: PitPlan) -> None:
    names = spine.table.column_names
    for _, name in plan.features:
        if name in names:
            raise SpineError(f"the spine has a column {name!r}, which is also a feature; rename the column")
    for name, dtype in plan.request.items():
        if name not in names:
            raise SpineError(f"a derived feature computes with {name!r}; the spine needs a column of that name")
        if not _fits(found := spine.table.schema.field(name).type, dtype):
            raise SpineError(f"a derived feature computes with {name!r} as {dtype}; the spine has it as {found}")


def _fits(found: pa.DataType, dtype: str) -> bool:
    if pa.types.is_dictionary(found):
        found = found.value_type
    whole = pa.types.is_integer(found)
    return {
        "str": pa.types.is_string(found) or pa.types.is_large_string(found),
        "bool": pa.types.is_boolean(found),
        "int": whole,
        "float": whole or pa.types.is_floating(found) or pa.types.is_decimal(found),
    }[dtype] or pa.types.is_null(found)


def _slice(plan: PitPlan, view: ViewRead, spine: Spine, join: Join) -> LogSlice:
    """The rows that can matter: from the first window's start (unless the newest row is asked for) to the last time."""
    first, last = (int(spine.times_us.min()), int(spine.times_us.max())) if spine.rows else (0, 0)
    ids = spine.entities[view.key].ids
    starts = [window.start(first) for window in view.distinct_windows]
    return LogSlice(
        target=view.target,
        columns=view.columns,
        after=None if view.rows else from_micros(min(starts)),
        until=from_micros(last),
        created_until=from_micros(plan.known_at.time_us) if plan.known_at.kind == "time" else None,
        entity_ids=[str(one) for one in ids.to_pylist()] if len(ids) <= FEW_ENTITIES else None,
        hold=partial(join.held, view),
    )


def _inputs(plan: PitPlan, snapshot: Snapshot) -> Mapping[str, ViewInput]:
    return {
        view.target: ViewInput(code_digest=view.digest, rows=snapshot.held[view.target].rows_read)
        for view in plan.views
    }
