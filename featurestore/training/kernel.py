"""The kernel: a plan, a spine and the log's rows → the features, one value per spine row, in the spine's order.

It runs in the process of whoever asks, over Arrow tables that hold at least the rows the plan needs; nothing else of
the product is involved. No value comes from a row that happened after the spine row's time, or that was not known
then if the plan says so.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from featurestore.definitions.dtypes import arrow_type
from featurestore.offline.held import PARTS, Held, Part
from featurestore.offline.snapshot import Progress
from featurestore.training.pit_plan import Column, PitPlan, RowRead, ViewRead
from featurestore.training.spine import Entities, Int64s, Spine, places
from featurestore.training.timeline import Bounds, Candidates, Moments, Timeline, codes_of, int64s, pieces_of
from featurestore.training.window_features import fold_windows
from featurestore.transform.derivation import TYPES
from featurestore.transform.derive import derive

Columns = dict[Column, pa.ChunkedArray | pa.Array]


class Join:
    """A plan and a spine that wait for the log's rows."""

    def __init__(self, plan: PitPlan, spine: Spine) -> None:
        self._plan, self._spine = plan, spine
        self._moments = {key: Moments.of(entities, spine.times_us) for key, entities in spine.entities.items()}

    def thin(self, view: ViewRead, log: pa.Table) -> pa.Table:
        """Of some of a view's rows those that can matter, whatever the others are.

        Of any rows the join makes the same as of what is left of them. For the newest rows that is at most a row per
        row of the spine, for windows what some row's window covers.
        """
        moments = self._moments[view.key]
        candidates = self._candidates(view, log, moments)
        timeline = Timeline(log, candidates, self._spine.entities[view.key], delay_us=self._delay_us)
        matters = np.zeros(log.num_rows, bool)
        if view.rows:
            newest = timeline.newest(moments)
            matters[newest[newest >= 0]] = True
        if view.windows:
            matters[timeline.between(_starts(view, moments), moments)] = True
        return log.filter(pa.array(matters))

    def held(self, view: ViewRead) -> Held:
        """Takes a view's rows in, however many they are."""
        entities = self._spine.entities[view.key]
        return Held(partial(self.thin, view), lambda log: _parts(entities, codes_of(log, entities)))

    def columns(self, logs: Mapping[str, Held], progress: Progress) -> Columns:
        """What `join` says."""
        plan, spine, found = self._plan, self._spine, Columns()
        steps = len(plan.views) + len(plan.derivations)
        for step, view in enumerate(plan.views):
            progress(f"join {view.target}", step, steps)
            found |= self._read_view(view, logs[view.target])
        for step, what in enumerate(plan.derivations, len(plan.views)):
            progress(f"derive {what.target}", step, steps)
            given = [found[one.target, one.name] if one.target else spine.table.column(one.name) for one in what.inputs]
            derived = derive(what, given)
            found |= {(what.target, name): derived.column(name) for name in derived.column_names}
        progress("join", steps, steps)
        return found

    def _read_view(self, view: ViewRead, log: Held) -> Columns:
        moments = self._moments[view.key]
        made = [self._read_part(view, part.rows, self._moments_of(view, part)) for part in log.parts()]
        found = made[0] if len(made) == 1 else pa.concat_tables(made).take(places(np.argsort(moments.rows)))
        return {(view.target, name): found.column(name) for name in found.column_names}

    def _moments_of(self, view: ViewRead, part: Part) -> Moments:
        """Those of its entities; in their own order, or in the spine's if they are all."""
        moments = self._moments[view.key]
        if part.is_whole:
            return moments
        of = _parts(self._spine.entities[view.key], moments.codes)
        return moments.between(*np.searchsorted(of, [part.first, part.end]))

    def _read_part(self, view: ViewRead, log: pa.Table, moments: Moments) -> pa.Table:
        """By several threads, each for some of the entities."""
        entities, candidates = self._spine.entities[view.key], self._candidates(view, log, moments)

        def read(some: Moments) -> tuple[Int64s | None, Mapping[str, pa.Array]]:
            timeline = Timeline(log, candidates.about(some), entities, delay_us=self._delay_us)
            newest = timeline.newest(some) if view.rows else None
            with np.errstate(all="ignore"):  # NaN and infinity are values like others
                return newest, fold_windows(view, timeline, log, some)

        pieces = moments.cut(pieces_of(len(candidates.rows)))
        with ThreadPoolExecutor(len(pieces)) as pool:
            newest, windows = zip(*pool.map(read, pieces), strict=True)
        found: dict[str, Any] = {}
        if view.rows:
            rows, times_us = moments.to_spine(np.concatenate(newest)), moments.to_spine(moments.times_us)
            found |= {one.name: _newest_values(one, times_us, log, rows) for one in view.rows}
        if view.windows:
            back = places(np.argsort(moments.rows))
            together = {name: pa.concat_arrays([piece[name] for piece in windows]) for name in windows[0]}
            found |= {name: values.take(back) for name, values in together.items()}
        return pa.table(found)

    def _candidates(self, view: ViewRead, log: pa.Table, moments: Moments) -> Candidates:
        entities = self._spine.entities[view.key]
        starts_us, known_until_us = None if view.rows else _starts(view, moments), self._plan.known_at.time_us
        bounds = Bounds.of(moments, starts_us, len(entities.ids), known_until_us=known_until_us)
        return Candidates.of(log, entities, bounds)

    @property
    def _delay_us(self) -> int | None:
        known_at = self._plan.known_at
        return known_at.delay_us if known_at.kind == "row" else None


def join(plan: PitPlan, spine: Spine, logs: Mapping[str, pa.Table], progress: Progress) -> Columns:
    """Every column of the plan by (target, name).

    `logs` has a table per view of the plan, by target: order.HEAD and the view's columns.

    Raises:
        TerminalError: a sum does not fit into 64 bits, or a derived feature's SQL fails on these values.
    """
    return Join(plan, spine).columns({target: Held.of(log) for target, log in logs.items()}, progress)


def _starts(view: ViewRead, moments: Moments) -> Int64s:
    """Where the windows of each moment start, the earliest of them."""
    return np.minimum.reduce([window.start(moments.times_us) for window in view.distinct_windows])


def _newest_values(read: RowRead, times_us: Int64s, log: pa.Table, newest: Int64s) -> pa.ChunkedArray:
    """The column's values in the newest rows at some times; NULL where there is none, or where it is too old."""
    absent = newest < 0
    if read.max_age_us is not None:
        happened = int64s(log, "event_timestamp")[newest] if log.num_rows else times_us
        absent = absent | (times_us - happened > read.max_age_us)
    column = log.column(read.name).cast(arrow_type(TYPES[read.dtype]))
    return column.take(places(newest, absent))


def _parts(entities: Entities, codes: Int64s) -> Int64s:
    """The part that each entity's rows are in when they are too many for memory; it rises with the entity's code."""
    return codes * PARTS // max(1, len(entities.ids))
