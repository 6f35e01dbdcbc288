"""What becomes of landed files: closed hours are compacted, and what is older than its source is kept is removed.

Neither touches the last file of a chain, which tells its writer where to go on, nor a batch that a view still waits
for. Files are removed after what takes their place, or says that they are gone, is durable; what a crash leaves is
removed the next time.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, takewhile

import msgspec

from featurestore.definitions.durations import duration
from featurestore.definitions.source import Source
from featurestore.landing import rewritten
from featurestore.landing.batch import Batch, to_micros
from featurestore.landing.chain import Floor
from featurestore.landing.publish import file_name
from featurestore.landing.uploads import MANIFEST, REMOVED
from featurestore.landing.zone import LandingZone

log = logging.getLogger(__name__)

FILE_ROWS = 4_000_000  # of a compacted file: it is made in memory

Says = Callable[[Batch], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tended:
    """What was done to the landed files of a source."""

    compacted_hours: int = 0
    compacted_batches: int = 0
    removed_batches: int = 0
    removed_rows: int = 0
    removed_dead_letters: int = 0  # files of them


def tend(zone: LandingZone, source: Source, now: datetime, *, is_applied: Says, is_in_lake: Says) -> Tended:
    """Remove what is too old, compact what is closed; by one process at a time. Doing it again changes nothing.

    `is_applied`: whether every view of the source has the batch; `is_in_lake`: whether the rows that they made of it
    have left DuckDB, which could not be made again without the batch.

    Raises:
        CorruptFileError: a landed file is damaged; what comes after it in its chain is left as it is.
    """
    until = now - duration(source.keep, "keep") if source.keep else None
    removed: list[Batch] = []
    hours: list[Sequence[Batch]] = []
    for chain, batches in _chains(zone, source):
        if until is not None:
            removed += _remove_prefix(zone, chain, batches, is_in_lake, until)
        kept = [batch for batch in batches if batch not in removed]
        hours += [hour for hour in _closed_hours(zone, chain, kept, is_applied) if _compact(zone, chain, hour)]
    removed += _remove_uploads(zone, source, is_in_lake, until)
    return Tended(
        compacted_hours=len({(hour[0].chain, hour[0].hour) for hour in hours}),
        compacted_batches=sum(map(len, hours)),
        removed_batches=len(removed),
        removed_rows=sum(batch.rows for batch in removed),
        removed_dead_letters=_remove_dead_letters(zone, source, now),
    )


def _chains(zone: LandingZone, source: Source) -> list[tuple[str, list[Batch]]]:
    """The batches of each partition, in order, without those of the hour that its last one landed in."""
    by_chain: dict[str, list[Batch]] = {}
    for batch in zone.batches(source.name):
        if "/gen=" in batch.chain:
            by_chain.setdefault(batch.chain, []).append(batch)
    found: list[tuple[str, list[Batch]]] = []
    for chain, batches in by_chain.items():
        tail = zone.tail(chain)
        if tail is not None:  # times of a chain only grow, so earlier hours are closed
            found.append((chain, [batch for batch in sorted(batches, key=_start) if batch.hour < tail.hour]))
    return found


def _start(batch: Batch) -> int:
    return batch.start


def _closed_hours(zone: LandingZone, chain: str, batches: Sequence[Batch], is_applied: Says) -> Iterator[list[Batch]]:
    """Batches of one hour and schema that stand in files of their own and could stand in one."""
    alone = set(zone.storage.names(chain))
    for _, hour in groupby(batches, key=lambda batch: (batch.hour, batch.schema_version)):
        group: list[Batch] = []
        for batch in hour:
            if group and sum(one.rows for one in group) + batch.rows > FILE_ROWS:
                yield group
                group = []
            if not is_applied(batch):
                group = []
                break
            group.append(batch)
        if len(group) > 1 and any(file_name(one.start) in alone for one in group):
            yield group


def _compact(zone: LandingZone, chain: str, batches: Sequence[Batch]) -> bool:
    storage = zone.storage
    name = rewritten.newest(storage.names(chain)).get(batches[0].start)
    done = rewritten.read_rewritten(storage, f"{chain}/{name}").batches if name else ()
    if done != tuple(batches):
        rewritten.rewrite(storage, chain, batches, [zone.read(batch) for batch in batches])
    for batch in batches:
        storage.remove(batch.batch_id)
    log.info("%s: %d batches of %s are in one file", chain, len(batches), batches[0].hour)
    return done != tuple(batches)


def _remove_prefix(
    zone: LandingZone, chain: str, batches: Sequence[Batch], is_in_lake: Says, until: datetime
) -> list[Batch]:
    """Whole hours from the beginning of the chain, as far as the lake has them."""
    gone: list[Batch] = []
    for hour, group in groupby(takewhile(lambda one: one.created_at < until, batches), key=lambda one: one.hour):
        of_hour = list(group)
        if hour >= until.replace(minute=0, second=0, microsecond=0) or not all(map(is_in_lake, of_hour)):
            break
        gone += of_hour
    before, names = zone.floor(chain), zone.storage.names(chain)
    begin = before.offset
    if gone:
        begin = gone[-1].end
        new = Floor(
            offset=begin,
            batches=before.batches + len(gone),
            rows=before.rows + sum(batch.rows for batch in gone),
            dead_rows=before.dead_rows + sum(batch.dead_rows for batch in gone),
            until=to_micros(gone[-1].created_at),
        )
        _create(zone, f"{chain}/{begin:020d}.floor", msgspec.json.encode(new))
    for name in names:
        if name[:20].isdigit() and int(name[:20]) < begin:
            zone.storage.remove(f"{chain}/{name}")
    return gone


def _remove_uploads(zone: LandingZone, source: Source, is_in_lake: Says, until: datetime | None) -> list[Batch]:
    """Whole uploads; the manifest stays, so that their ids stay taken."""
    gone: list[Batch] = []
    by_chain: dict[str, list[Batch]] = {}
    for batch in zone.batches(source.name):
        by_chain.setdefault(batch.chain, []).append(batch)
    for name in zone.storage.directories(source.name) if until is not None else []:
        chain = f"{source.name}/{name}"
        batches = by_chain.get(chain, [])
        is_old = batches and all(until and one.created_at < until and is_in_lake(one) for one in batches)
        names = zone.storage.names(chain) if name.startswith("upload=") else []
        if is_old and REMOVED not in names and MANIFEST in names:
            _create(zone, f"{chain}/{REMOVED}", b"")
            gone += batches
        if is_old or REMOVED in names:
            for one in names:
                if one not in {MANIFEST, REMOVED}:
                    zone.storage.remove(f"{chain}/{one}")
    return gone


def _remove_dead_letters(zone: LandingZone, source: Source, now: datetime) -> int:
    if not source.keep_dead_letters:
        return 0
    until, removed = now - duration(source.keep_dead_letters, "keep_dead_letters"), 0
    by_chain: dict[str, list[Batch]] = {}
    for batch in zone.batches(source.name):
        if batch.dead_letters and batch.created_at < until:
            by_chain.setdefault(batch.chain, []).append(batch)
    for chain, batches in by_chain.items():
        names = set(zone.storage.names(chain))
        for batch in batches:
            if batch.dead_letters in names:
                zone.storage.remove(f"{chain}/{batch.dead_letters}")
                removed += 1
    return removed


def _create(zone: LandingZone, path: str, data: bytes) -> None:
    with zone.storage.writing(path) as file:
        file.write(data)
        zone.storage.create(file, path)
