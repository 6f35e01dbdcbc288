"""What was said about models, one metadata file after the other; pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from featurestore.models.metadata import PRODUCTION, ModelVersion, Status

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class BlobVersion:
    """A metadata file in the container."""

    metadata: ModelVersion
    etag: str
    location: str  # blob name

    @property
    def place(self) -> tuple[str, int, datetime, str]:
        """Its place among all: the versions of a model as they were pushed, then its promotions in their order."""
        return self.metadata.model_id, self.metadata.promotion, self.metadata.recorded_at, self.location


@dataclass(frozen=True, slots=True)
class Unusable:
    """A metadata file that cannot be used, and why."""

    location: str
    reason: str


@dataclass(frozen=True, slots=True)
class Scan:
    """What lies in the container."""

    versions: tuple[BlobVersion, ...] = ()  # by `place`
    unusable: tuple[Unusable, ...] = ()


def scan_of(versions: Sequence[BlobVersion], unusable: Sequence[Unusable]) -> Scan:
    """Put versions into order; what stands behind a missing promotion of its model does not count yet."""
    last: dict[str, int] = {}
    kept: list[BlobVersion] = []
    behind: list[Unusable] = []
    for one in sorted(versions, key=lambda one: one.place):
        model_id, number = one.metadata.model_id, one.metadata.promotion
        missing = last.get(model_id, 0) + 1
        if number > missing:
            behind.append(Unusable(one.location, f"promotion {missing:06d} is missing or unusable"))
        else:
            last[model_id] = number
            kept.append(one)
    return Scan(tuple(kept), (*unusable, *behind))


def in_production(history: Sequence[ModelVersion]) -> list[str]:
    """Of one model's history, the versions that were promoted and not retired since; the last of them is to be served.

    The same as productions.sql says.
    """
    words = {one.version: one for one in history}  # the last about each
    promoted = [one for one in words.values() if one.promotion and one.status == "production"]
    return [one.version for one in sorted(promoted, key=lambda one: one.promotion)]


def next_word(
    history: Sequence[ModelVersion], pushed: ModelVersion, *, actor: str, now: datetime, status: Status
) -> ModelVersion:
    """The next thing said about a model. Its time is after all that was said before, whatever the clock says."""
    artifacts = pushed.artifacts
    if status == "production":
        artifacts = tuple(replace(one, azure_location=one.azure_location + PRODUCTION) for one in artifacts)
    return replace(
        pushed,
        status=status,
        artifacts=artifacts,
        actor=actor,
        recorded_at=max(now, max(one.recorded_at for one in history) + _MICROSECOND),
        promotion=history[-1].promotion + 1,
    )
