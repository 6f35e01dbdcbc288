"""What the sensor of landed batches remembers between ticks. A hint: without it, work is found from the ledger."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import msgspec

from featurestore.landing.pending import BatchGroup, Trouble, blame
from featurestore_dagster.runs import FailedRun

SEEN_RUNS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """When each source last got a run, what failed runs have taught, and up to where failures were read."""

    failures_until: datetime
    seen_runs: tuple[str, ...] = ()  # around that time
    requested: Mapping[str, datetime] = field(default_factory=dict[str, datetime])
    troubles: Mapping[str, Trouble] = field(default_factory=dict[str, Trouble])

    @classmethod
    def from_json(cls, text: str | None, now: datetime) -> "Cursor":
        """What was written before; a new one where that cannot be read."""
        try:
            return msgspec.json.decode(text or "", type=cls)
        except msgspec.MsgspecError:
            return cls(failures_until=now)

    def to_json(self) -> str:
        return msgspec.json.encode(self).decode()

    @property
    def parked(self) -> frozenset[str]:
        return frozenset(batch_id for batch_id, trouble in self.troubles.items() if trouble.parked)

    def after_failures(self, failed: Sequence[FailedRun], *, interval_s: float) -> "Cursor":
        troubles = dict(self.troubles)
        for run in failed:
            troubles = blame(troubles, run.failure, interval_s=interval_s)
        return replace(
            self,
            failures_until=max([self.failures_until, *(run.updated_at for run in failed)]),
            seen_runs=(*self.seen_runs, *(run.run_id for run in failed))[-SEEN_RUNS:],
            troubles=troubles,
        )

    def after_release(self, released: Mapping[str, datetime]) -> "Cursor":
        """Forget what was known of released batches when they were."""
        kept = {name: one for name, one in self.troubles.items() if name not in released or one.at > released[name]}
        return replace(self, troubles=kept)

    def only_for(self, waiting: Collection[str]) -> "Cursor":
        """Forget the troubles of batches that wait no longer."""
        return replace(self, troubles={name: trouble for name, trouble in self.troubles.items() if name in waiting})

    def after_requests(self, groups: Sequence[BatchGroup], now: datetime) -> "Cursor":
        return replace(self, requested={**self.requested, **{group.source: now for group in groups}})
