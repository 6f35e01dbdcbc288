"""Dead letters, after what was wrong was mended: decoded again by today's declaration, and landed once."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from featurestore.definitions.project import Project
from featurestore.landing.batch import Batch, utc_now
from featurestore.landing.columns import Door
from featurestore.landing.publish import Published
from featurestore.landing.zone import LandingZone, replay_chain
from ingest.records import JsonDecoder


@dataclass(frozen=True, slots=True)
class Replay:
    """What became of those dead letters of a batch that had not been replayed yet."""

    landed: Batch | None  # names its origin; the rows keep their sequence
    reasons: tuple[str, ...]  # of those that are refused still


def replay(zone: LandingZone, project: Project, origin: Batch, *, now: Callable[[], datetime] = utc_now) -> Replay:
    """Land what can be landed by now of the dead letters that came with a batch.

    Each is landed once, however often and by how many at once this is called: replays of a batch form a chain of their
    own, whose next file only one can create.

    Raises:
        DefinitionError: its source is not declared any more.
        TransientError: the disk is full, or the storage does not answer.
    """
    decoder = JsonDecoder(Door.of(project.source(origin.source), project))
    while True:
        chain = zone.chain(replay_chain(origin))
        previous = chain[-1] if chain else None
        replayed = zone.replayed(origin)
        letters = [one for one in zone.dead_letters_of(origin) if one.sequence not in replayed]
        decoded = decoder.decode(
            [one.raw for one in letters], [one.sequence for one in letters], now(), [one.key for one in letters]
        )
        reasons = tuple(one.reason for one in decoded.rejections)
        if not decoded.rows.num_rows:
            return Replay(None, reasons)
        start = previous.end if previous else 0
        result = zone.publish(
            replay_chain(origin),
            decoded.rows,
            source=origin.source,
            start=start,
            end=start + decoded.rows.num_rows,
            schema_version=project.source(origin.source).schema_version,
            previous=previous,
            origin=origin.batch_id,
            now=now,
        )
        if isinstance(result, Published):
            return Replay(result.batch, reasons)
