"""Which landed batches wait for which views, and how they are cut into runs. Pure: facts and time come from outside."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import groupby
from math import ceil

from featurestore.landing.batch import Batch
from featurestore.settings import DagsterSettings

PARKED_AFTER = 3  # failures of its own, alone
PARKED_AT_MOST = 20  # batches of a source; when more fail, it is not the batches, and they go on being tried
LONGEST_PAUSE_S = 300.0

Pair = tuple[str, str]  # (batch_id, target)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A version of a view, and from when on batches are its own without a backfill."""

    name: str
    source: str
    since: datetime | None = None  # batches that landed earlier wait for a backfill; None: all are its own


@dataclass(frozen=True, slots=True)
class Pending:
    """A batch and the targets that still miss it."""

    batch: Batch
    targets: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """How much one run takes, and how many run beside each other per source."""

    lanes: int
    run_rows: int
    run_batches: int
    run_interval_s: float
    lane_batches: int = 4  # a further lane for each so many, or so many rows: below that, a run is not worth its start
    lane_rows: int = 200_000

    @classmethod
    def of(cls, settings: DagsterSettings) -> "RunLimits":
        return cls(
            lanes=settings.lanes,
            run_rows=settings.run_rows,
            run_batches=settings.run_batches,
            run_interval_s=settings.run_interval_s,
        )


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run that may still do its work: its lane, and the batches that it names."""

    lane: str
    batch_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class BatchGroup:
    """What one run is to do: batches of one source and hour."""

    source: str
    hour: datetime
    lane: str
    waiting: tuple[Pending, ...]

    @property
    def batch_ids(self) -> tuple[str, ...]:
        return tuple(one.batch.batch_id for one in self.waiting)

    @property
    def rows(self) -> int:
        return sum(one.batch.rows for one in self.waiting)

    @property
    def targets(self) -> frozenset[str]:
        """The targets that miss any of the batches."""
        return frozenset[str]().union(*(one.targets for one in self.waiting))


class Cause(StrEnum):
    """Whose fault a failed run is."""

    BATCH = "batch"  # an error that would come again with the same rows
    INFRASTRUCTURE = "infrastructure"  # a service did not answer, no space, cancelled
    UNKNOWN = "unknown"  # the run ended without saying why: its process died


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A run that failed, and what it had been given."""

    batch_ids: frozenset[str]
    cause: Cause
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What failed runs have taught about one batch; forgotten when it is applied."""

    tries: int = 0  # failed runs that had it
    own_failures: int = 0  # of them, those where it was alone and its rows were to blame
    alone: bool = False  # whether it has to run by itself
    at: datetime  # of the last failure
    not_before: datetime
    reason: str = ""

    @property
    def parked(self) -> bool:
        """Whether it is left alone until someone releases it."""
        return self.own_failures >= PARKED_AFTER


def find_pending(
    landed: Iterable[Batch], targets: Iterable[Target], applied: Collection[Pair], unpushed: Collection[Pair]
) -> list[Pending]:
    """The landed batches that some target misses: not in the ledger, or in it and not in the online store."""
    by_source: dict[str, list[Target]] = {}
    for target in targets:
        by_source.setdefault(target.source, []).append(target)
    found: list[Pending] = []
    for batch in landed:
        missing = frozenset(
            target.name
            for target in by_source.get(batch.source, ())
            if (pair := (batch.batch_id, target.name)) in unpushed
            or (pair not in applied and (target.since is None or batch.created_at >= target.since))
        )
        if missing:
            found.append(Pending(batch, missing))
    return found


def plan_runs(
    pending: Iterable[Pending],
    *,
    live: Collection[LiveRun],
    troubles: Mapping[str, Trouble],
    requested: Mapping[str, datetime],
    limits: RunLimits,
    now: datetime,
    has_partition: Callable[[datetime], bool] = lambda hour: True,
) -> list[BatchGroup]:
    """Cut what waits into runs, oldest hours first.

    No batch is in two groups, in a live run, parked, before its time, or of an hour without a partition. A group has
    one source, one hour and a lane of its own that no live run holds, and keeps the limits unless it is one batch. A
    batch that a failed run has made suspect is a group by itself; while others wait too, suspects have the first lane
    of the source and the others the rest, so that neither holds up the other.
    """
    named = frozenset[str]().union(*(run.batch_ids for run in live))
    taken = {run.lane for run in live}
    by_source: dict[str, list[Pending]] = {}
    for one in pending:
        trouble = troubles.get(one.batch.batch_id)
        ready = trouble is None or (not trouble.parked and trouble.not_before <= now)
        if ready and one.batch.batch_id not in named and has_partition(one.batch.hour):
            by_source.setdefault(one.batch.source, []).append(one)
    groups: list[BatchGroup] = []
    for source, waiting in sorted(by_source.items()):
        is_due = _is_due(requested.get(source), waiting, limits, now)
        groups += _plan_source(source, waiting, taken, troubles, is_due, limits)
    return groups


def blame(troubles: Mapping[str, Trouble], failure: Failure, *, interval_s: float) -> dict[str, Trouble]:
    """What is known after one more failed run.

    Only a batch that fails alone, for a reason of its own, comes nearer to being parked. After a failure of several,
    each runs alone, at once where the rows are to blame. After an infrastructure error they wait, together.
    """
    known = dict(troubles)
    parked = [_source_of(batch_id) for batch_id, trouble in known.items() if trouble.parked]
    for batch_id in sorted(failure.batch_ids):
        old = known.get(batch_id, Trouble(at=failure.at, not_before=failure.at))
        tries = old.tries + 1
        is_alone, is_own = len(failure.batch_ids) == 1, failure.cause is Cause.BATCH
        own_failures = old.own_failures + (is_alone and is_own)
        if own_failures >= PARKED_AFTER and parked.count(_source_of(batch_id)) >= PARKED_AT_MOST:
            own_failures = PARKED_AFTER - 1
        at_once = is_own and not is_alone
        known[batch_id] = Trouble(
            tries=tries,
            own_failures=own_failures,
            # A process that died once may have been unlucky; twice, the group may be what kills it.
            alone=old.alone or is_own or (failure.cause is Cause.UNKNOWN and tries > 1),
            at=failure.at,
            not_before=failure.at if at_once else failure.at + _pause(tries, interval_s),
            reason=failure.reason,
        )
    return known


def lane(source: str, number: int) -> str:
    """The name of a lane; at most one run of it is live."""
    return f"{source}.{number}"


def _plan_source(
    source: str,
    waiting: Sequence[Pending],
    taken: Collection[str],
    troubles: Mapping[str, Trouble],
    is_due: bool,
    limits: RunLimits,
) -> Iterator[BatchGroup]:
    in_order = sorted(waiting, key=lambda one: (one.batch.created_at, one.batch.batch_id))
    is_suspect = {batch_id for batch_id, trouble in troubles.items() if trouble.alone}
    suspects = [one for one in in_order if one.batch.batch_id in is_suspect]
    others = [one for one in in_order if one.batch.batch_id not in is_suspect] if is_due else []
    lanes = [lane(source, number) for number in range(limits.lanes)]
    of_suspects, of_others = (lanes[:1], lanes[1:]) if suspects and others else (lanes, lanes)
    for name, one in zip((name for name in of_suspects if name not in taken), suspects, strict=False):
        yield BatchGroup(source, one.batch.hour, name, (one,))
    yield from _cut(source, others, [name for name in of_others if name not in taken], limits)


def _cut(source: str, waiting: Sequence[Pending], free: list[str], limits: RunLimits) -> Iterator[BatchGroup]:
    """Fill the free lanes, oldest hour first; an hour takes as many as are worth it."""
    for hour, group in groupby(waiting, key=lambda one: one.batch.hour):
        if not free:
            return
        of_hour = list(group)
        rows = sum(one.batch.rows for one in of_hour)
        ways = min(len(free), ceil(max(rows / limits.lane_rows, len(of_hour) / limits.lane_batches)))
        for filled in _fill(of_hour, ways, limits):
            yield BatchGroup(source, hour, free.pop(0), tuple(filled))


def _fill(waiting: Sequence[Pending], ways: int, limits: RunLimits) -> list[list[Pending]]:
    """Deal the oldest batches to the group with the fewest rows, until one does not fit."""
    groups: list[list[Pending]] = [[] for _ in range(ways)]
    rows = [0] * ways
    for one in waiting:
        lightest = min(range(ways), key=lambda index: (rows[index], len(groups[index])))
        group = groups[lightest]
        if group and (rows[lightest] + one.batch.rows > limits.run_rows or len(group) >= limits.run_batches):
            break
        group.append(one)
        rows[lightest] += one.batch.rows
    return [group for group in groups if group]


def _is_due(last: datetime | None, waiting: Sequence[Pending], limits: RunLimits, now: datetime) -> bool:
    """Whether the source may start another run: its interval has passed, or more waits than one run takes."""
    if last is None or last > now:  # a clock that was set back holds nothing up
        return True
    if sum(one.batch.rows for one in waiting) > limits.run_rows or len(waiting) > limits.run_batches:
        return True
    return now - last >= timedelta(seconds=limits.run_interval_s)


def _pause(tries: int, interval_s: float) -> timedelta:
    return timedelta(seconds=min(max(interval_s, 1.0) * 2 ** min(tries - 1, 16), LONGEST_PAUSE_S))


def _source_of(batch_id: str) -> str:
    return batch_id.partition("/")[0]
