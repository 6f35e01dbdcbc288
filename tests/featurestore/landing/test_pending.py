"""What waits, and how it is cut into runs: examples, laws, and a simulated platform with failing batches."""

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.landing.batch import Batch
from featurestore.landing.pending import (
    LONGEST_PAUSE_S,
    PARKED_AFTER,
    PARKED_AT_MOST,
    BatchGroup,
    Cause,
    Failure,
    LiveRun,
    Pending,
    RunLimits,
    Target,
    Trouble,
    blame,
    find_pending,
    lane,
    plan_runs,
)

T0 = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
LIMITS = RunLimits(lanes=2, run_rows=100, run_batches=5, run_interval_s=10, lane_rows=50, lane_batches=3)


def batch(number: int, *, source: str = "events", rows: int = 10, at: datetime = T0) -> Batch:
    return Batch(
        batch_id=f"{source}/partition=0/{number:020d}.parquet",
        source=source,
        start=number,
        end=number + rows,
        rows=rows,
        created_at=at + timedelta(seconds=number),
        schema_version="1",
        digest="d",
        bytes=1,
    )


def waiting(*batches: Batch) -> list[Pending]:
    return [Pending(one, frozenset({"v@v1"})) for one in batches]


def plan(
    pending: list[Pending],
    *,
    live: list[LiveRun] | None = None,
    troubles: dict[str, Trouble] | None = None,
    requested: dict[str, datetime] | None = None,
    limits: RunLimits = LIMITS,
    now: datetime = T0,
) -> list[BatchGroup]:
    return plan_runs(
        pending, live=live or [], troubles=troubles or {}, requested=requested or {}, limits=limits, now=now
    )


# --- what is pending -------------------------------------------------------------------------------------------


def test_a_batch_waits_for_each_target_of_its_source_that_has_not_applied_it() -> None:
    targets = [
        Target(name="a@v1", source="events"),
        Target(name="b@v1", source="events"),
        Target(name="c@v1", source="x"),
    ]
    first, second = batch(1), batch(2)
    applied = {(first.batch_id, "a@v1"), (first.batch_id, "b@v1"), (second.batch_id, "a@v1")}
    assert find_pending([first, second], targets, applied, set()) == [Pending(second, frozenset({"b@v1"}))]


def test_a_batch_in_the_ledger_that_the_online_store_does_not_list_waits_again() -> None:
    one = batch(1)
    pair = (one.batch_id, "a@v1")
    assert find_pending([one], [Target(name="a@v1", source="events")], {pair}, {pair}) == [
        Pending(one, frozenset({"a@v1"}))
    ]


def test_a_new_view_starts_with_batches_that_land_from_then_on() -> None:
    new = Target(name="new@v1", source="events", since=T0 + timedelta(seconds=2))
    assert [p.batch.start for p in find_pending([batch(1), batch(2), batch(3)], [new], set(), set())] == [2, 3]


# --- runs ------------------------------------------------------------------------------------------------------


def test_little_goes_in_one_run() -> None:
    [group] = plan(waiting(batch(2), batch(1)))
    assert (group.source, group.lane, group.hour) == ("events", "events.0", T0)
    assert [one.batch.start for one in group.waiting] == [1, 2]


def test_much_is_cut_into_lanes_of_about_equal_rows() -> None:
    groups = plan(waiting(*(batch(n, rows=30) for n in range(8))))
    assert [group.lane for group in groups] == ["events.0", "events.1"]
    assert [group.rows for group in groups] == [90, 90]


def test_a_batch_larger_than_a_run_goes_alone() -> None:
    groups = plan(waiting(batch(1, rows=1000), batch(2, rows=1)))
    assert [len(group.waiting) for group in groups] == [1, 1]


def test_a_run_takes_so_many_batches_however_small() -> None:
    groups = plan(waiting(*(batch(n, rows=0) for n in range(20))))
    assert [len(group.waiting) for group in groups] == [5, 5]


def test_a_run_has_one_hour_and_the_oldest_hours_go_first() -> None:
    hours = [batch(1, at=T0 + timedelta(hours=h)) for h in (2, 0, 1)]
    groups = plan([Pending(one, frozenset({"v@v1"})) for one in hours])
    assert [group.hour for group in groups] == [T0, T0 + timedelta(hours=1)]


def test_a_live_lane_is_not_used_and_its_batches_do_not_wait() -> None:
    live = [LiveRun("events.0", frozenset({batch(1).batch_id}))]
    [group] = plan(waiting(batch(1), batch(2)), live=live)
    assert group.lane == "events.1"
    assert group.batch_ids == (batch(2).batch_id,)


def test_a_source_starts_a_run_once_per_interval_unless_more_waits_than_one_run_takes() -> None:
    just_now = {"events": T0 - timedelta(seconds=9)}
    assert plan(waiting(batch(1)), requested=just_now) == []
    assert len(plan(waiting(batch(1)), requested={"events": T0 - timedelta(seconds=10)})) == 1
    assert len(plan(waiting(*(batch(n) for n in range(6))), requested=just_now)) == 2
    assert len(plan(waiting(batch(1, rows=101)), requested=just_now)) == 1


def test_a_clock_that_was_set_back_holds_nothing_up() -> None:
    assert len(plan(waiting(batch(1)), requested={"events": T0 + timedelta(hours=3)})) == 1


def test_an_hour_without_a_partition_waits_and_holds_up_no_other() -> None:
    future = batch(1, at=T0 + timedelta(hours=9))
    groups = plan_runs(
        waiting(future, batch(2)),
        live=[], troubles={}, requested={}, limits=LIMITS, now=T0, has_partition=lambda hour: hour <= T0,
    )  # fmt: skip
    assert [group.batch_ids for group in groups] == [(batch(2).batch_id,)]


def test_a_run_serves_only_the_targets_that_miss_something() -> None:
    [group] = plan([Pending(batch(1), frozenset({"a@v1"})), Pending(batch(2), frozenset({"a@v1", "b@v1"}))])
    assert group.targets == {"a@v1", "b@v1"}


# --- failures --------------------------------------------------------------------------------------------------


def fail(troubles: dict[str, Trouble], cause: Cause, *batches: Batch, at: datetime = T0) -> dict[str, Trouble]:
    ids = frozenset(one.batch_id for one in batches)
    return blame(troubles, Failure(batch_ids=ids, cause=cause, reason="why", at=at), interval_s=10)


def test_after_a_failure_of_several_each_runs_alone_at_once() -> None:
    troubles = fail({}, Cause.BATCH, batch(1), batch(2))
    groups = plan(waiting(batch(1), batch(2)), troubles=troubles)
    assert [len(group.waiting) for group in groups] == [1, 1]
    assert not any(trouble.own_failures for trouble in troubles.values())


def test_a_batch_is_parked_after_failing_alone_for_its_own_reasons() -> None:
    troubles: dict[str, Trouble] = {}
    for times in range(1, PARKED_AFTER + 1):
        troubles = fail(troubles, Cause.BATCH, batch(1))
        assert troubles[batch(1).batch_id].parked == (times == PARKED_AFTER)
    later = T0 + timedelta(days=9)
    assert plan(waiting(batch(1)), troubles=troubles, now=later) == []
    assert troubles[batch(1).batch_id].reason == "why"


@pytest.mark.parametrize("cause", [Cause.INFRASTRUCTURE, Cause.UNKNOWN])
def test_nothing_is_parked_for_what_is_not_its_own_fault(cause: Cause) -> None:
    troubles: dict[str, Trouble] = {}
    for _ in range(50):
        troubles = fail(troubles, cause, batch(1))
    assert not troubles[batch(1).batch_id].parked
    assert troubles[batch(1).batch_id].not_before == T0 + timedelta(seconds=LONGEST_PAUSE_S)


def test_after_an_outage_batches_run_together_again() -> None:
    troubles = fail(fail({}, Cause.INFRASTRUCTURE, batch(1), batch(2)), Cause.INFRASTRUCTURE, batch(1), batch(2))
    assert plan(waiting(batch(1), batch(2)), troubles=troubles, now=T0 + timedelta(seconds=19)) == []
    [group] = plan(waiting(batch(1), batch(2)), troubles=troubles, now=T0 + timedelta(seconds=20))
    assert len(group.waiting) == 2


def test_a_group_whose_process_dies_twice_is_taken_apart() -> None:
    once = fail({}, Cause.UNKNOWN, batch(1), batch(2))
    assert not once[batch(1).batch_id].alone
    assert fail(once, Cause.UNKNOWN, batch(1), batch(2))[batch(1).batch_id].alone


def test_suspects_and_others_do_not_hold_each_other_up() -> None:
    troubles = fail({}, Cause.BATCH, batch(1), batch(2))
    groups = plan(waiting(batch(1), batch(2), batch(3), batch(4)), troubles=troubles)
    assert [(group.lane, [p.batch.start for p in group.waiting]) for group in groups] == [
        ("events.0", [1]),
        ("events.1", [3, 4]),
    ]
    held = plan(waiting(batch(1), batch(3)), troubles=troubles, live=[LiveRun("events.1", frozenset())])
    assert [[p.batch.start for p in group.waiting] for group in held] == [[1]]


def test_when_everything_fails_it_is_not_the_batches() -> None:
    troubles: dict[str, Trouble] = {}
    for number in range(PARKED_AT_MOST + 30):
        for _ in range(PARKED_AFTER):
            troubles = fail(troubles, Cause.BATCH, batch(number))
    assert sum(trouble.parked for trouble in troubles.values()) == PARKED_AT_MOST


# --- laws ------------------------------------------------------------------------------------------------------

BATCHES = st.lists(
    st.tuples(st.sampled_from(["events", "files"]), st.integers(0, 250), st.integers(0, 3)), max_size=40
).map(
    lambda drawn: [
        batch(number, source=source, rows=rows, at=T0 + timedelta(hours=hour))
        for number, (source, rows, hour) in enumerate(drawn)
    ]
)


@given(BATCHES, st.integers(1, 4), st.integers(0, 2**32), st.booleans())
def test_plans_are_bounded_disjoint_and_fair(batches: list[Batch], lanes: int, seed: int, recent: bool) -> None:
    chance = random.Random(seed)
    limits = replace(LIMITS, lanes=lanes)
    troubles: dict[str, Trouble] = {}
    for one in batches:
        if chance.random() < 0.3:
            for _ in range(chance.randint(1, PARKED_AFTER)):
                troubles = fail(troubles, chance.choice(list(Cause)), one, at=T0 - timedelta(days=1))
    live = [
        LiveRun(lane(source, number), frozenset(b.batch_id for b in batches if chance.random() < 0.2))
        for source in ("events", "files")
        for number in range(lanes)
        if chance.random() < 0.3
    ]
    requested = {"events": T0 - timedelta(seconds=1)} if recent else {}
    groups = plan(waiting(*batches), live=live, troubles=troubles, requested=requested, limits=limits)

    seen = Counter(batch_id for group in groups for batch_id in group.batch_ids)
    assert max(seen.values(), default=1) == 1
    assert not any(troubles[batch_id].parked for batch_id in seen if batch_id in troubles)
    assert not seen.keys() & frozenset[str]().union(*(run.batch_ids for run in live))
    names = [group.lane for group in groups] + [run.lane for run in live]
    assert len(names) == len(set(names))
    for group in groups:
        assert group.lane in {lane(group.source, number) for number in range(lanes)}
        assert {(p.batch.source, p.batch.hour) for p in group.waiting} == {(group.source, group.hour)}
        assert len(group.waiting) == 1 or (group.rows <= limits.run_rows and len(group.waiting) <= limits.run_batches)
        if any(batch_id in troubles and troubles[batch_id].alone for batch_id in group.batch_ids):
            assert len(group.waiting) == 1
    for source in ("events", "files"):
        of_source = [group for group in groups if group.source == source]
        if not troubles and len({group.hour for group in of_source}) == 1:
            largest = max(p.batch.rows for group in of_source for p in group.waiting)
            rows = [group.rows for group in of_source]
            assert max(rows) - min(rows) <= largest


class Simulation:
    """A platform in small: runs crash, services go away, some batches never work."""

    def __init__(self, batches: list[Batch], lanes: int, seed: int) -> None:
        self.chance = random.Random(seed)
        self.batches, self.limits = batches, replace(LIMITS, lanes=lanes)
        sources = {"a@v1": "events", "b@v1": "events", "c@v1": "files"}
        self.targets = [Target(name=name, source=source) for name, source in sources.items()]
        self.poison = {one.batch_id for one in batches if self.chance.random() < 0.1}
        self.applied: set[tuple[str, str]] = set()
        self.troubles: dict[str, Trouble] = {}
        self.failed_alone: Counter[str] = Counter()
        self.live: dict[str, BatchGroup] = {}
        self.requested: dict[str, datetime] = {}
        self.now = T0 + timedelta(hours=5)

    @property
    def pending(self) -> list[Pending]:
        return find_pending(self.batches, self.targets, self.applied, set())

    @property
    def is_over(self) -> bool:
        waiting = {one.batch.batch_id for one in self.pending}
        return not self.live and waiting <= {name for name, trouble in self.troubles.items() if trouble.parked}

    def step(self, *, calm: bool) -> None:
        self.now += timedelta(seconds=5)
        for name, group in list(self.live.items()):
            if self.chance.random() < 0.5:
                del self.live[name]
                self.finish(group, calm=calm)
        waiting = {one.batch.batch_id for one in self.pending}
        self.troubles = {name: trouble for name, trouble in self.troubles.items() if name in waiting}
        live = [LiveRun(name, frozenset(group.batch_ids)) for name, group in self.live.items()]
        for group in plan_runs(
            self.pending, live=live, troubles=self.troubles, requested=self.requested, limits=self.limits, now=self.now
        ):
            assert group.lane not in self.live
            self.live[group.lane] = group
            self.requested[group.source] = self.now

    def finish(self, group: BatchGroup, *, calm: bool) -> None:
        ids, outcome = frozenset(group.batch_ids), 1.0 if calm else self.chance.random()
        pairs = {
            (batch_id, target.name) for batch_id in ids for target in self.targets if target.source == group.source
        }
        if outcome < 0.2:  # in the middle of its work
            self.applied |= {pair for pair in pairs if self.chance.random() < 0.5 and pair[0] not in self.poison}
            self.blame(ids, Cause.UNKNOWN)
        elif outcome < 0.4:
            self.blame(ids, Cause.INFRASTRUCTURE)
        elif ids & self.poison:
            self.failed_alone.update(ids if len(ids) == 1 else ())
            self.blame(ids, Cause.BATCH)
        else:
            self.applied |= pairs

    def blame(self, ids: frozenset[str], cause: Cause) -> None:
        failure = Failure(batch_ids=ids, cause=cause, reason=cause, at=self.now)
        self.troubles = blame(self.troubles, failure, interval_s=10)


@settings(max_examples=60, deadline=None)
@given(BATCHES, st.integers(1, 3), st.integers(0, 2**32))
def test_every_batch_is_applied_or_parked_whatever_fails(batches: list[Batch], lanes: int, seed: int) -> None:
    """No batch is forgotten; only those that cannot work are parked, after exactly three failures alone."""
    platform = Simulation(batches, lanes, seed)
    for tick in range(6_000):
        platform.step(calm=tick > 300)  # in the end services stay up, or nothing could be promised
        if platform.is_over:
            break
    assert {one.batch.batch_id for one in platform.pending} == platform.poison
    assert all(platform.failed_alone[batch_id] == PARKED_AFTER for batch_id in platform.poison)
