"""An entity erased: its landed rows, and everything that was made of them, wherever they lie.

The record comes first (featurestore.landing.erasures). From then on the rows are left out wherever landed rows are
read; then they go, from where readers see them to where only bytes are left. Every step may be repeated, so that
whatever ends this, it is done again from the beginning: by the same command, or by the Dagster job `finish_erasures`.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import uuid4

import msgspec
import pyarrow as pa

from featurestore.database.client import Database
from featurestore.database.erasing import quarantined_with_key
from featurestore.database.jobs import EraseJob
from featurestore.definitions.entity import Entity
from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView
from featurestore.errors import TerminalError
from featurestore.landing import erase as landed_files
from featurestore.landing.batch import from_micros, to_micros, utc_now
from featurestore.landing.erase import TakenOut
from featurestore.landing.erasures import Erasure, Erasures, key_texts_of
from featurestore.landing.zone import LandingZone
from featurestore.offline import erase as lake_files
from featurestore.offline.lake import Lake
from featurestore.offline.newest import newest_rows
from featurestore.offline.relations import log_relation
from featurestore.offline.tiles import recent_tiles
from featurestore.online.persistence import rewrite_files
from featurestore.online.store import OnlineStore
from featurestore.online.sweep import everyone, sweep, sweep_windows
from featurestore.training.files import read_table

log = logging.getLogger(__name__)

SETTLES_AFTER = timedelta(hours=7)  # longer than a run may last: what it had read before cannot come any more

Progress = Callable[[str, int, int], None]

_STEPS = (
    "look for its rows",
    "the log",
    "the online store",
    "landed files",
    "the lake",
    "the database's file",
    "Redis",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """Everything that may hold rows of an entity."""

    project: Project
    zone: LandingZone
    database: Database
    lake: Lake
    online: OnlineStore
    redis_urls: Sequence[str] = ()  # whose files are written anew
    redis_timeout_s: float = 5.0
    now: Callable[[], datetime] = utc_now

    @property
    def erasures(self) -> Erasures:
        if self.zone.erasures is None:
            raise TerminalError("this landing zone knows of no erasures")
        return self.zone.erasures


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What was taken away."""

    rows: int = 0  # that had landed
    landed: TakenOut = field(default_factory=TakenOut)
    lake_files: int = 0
    online: int = 0  # rows and tiles
    refused: Sequence[str] = ()  # by a Redis that keeps its files


def decide(holdings: Holdings, entity: Entity, entity_id: str, now: datetime) -> Erasure:
    """Write down that an entity is erased; from here on it will be, whatever happens. Rows that land later stay.

    Raises:
        TerminalError: no view is of the entity.
    """
    sources = sorted({view.source.name for view in holdings.project.feature_views if view.entity == entity})
    if not sources:
        raise TerminalError(f"no view is of entity {entity.name!r}")
    # A landing time may be ahead of the clock, which was set back.
    newest = (batch.created_at for source in sources for batch in holdings.zone.batches(source)[-1:])
    return holdings.erasures.decide(entity.name, entity.key_columns, sources, entity_id, max([now, *newest]))


def carry_out(holdings: Holdings, erasure: Erasure, *, progress: Progress) -> Erased:
    """Take away everything of an erasure that was decided; doing it again changes nothing.

    Raises:
        CorruptFileError: a file is damaged, so that it cannot be known whether it holds rows of the entity.
        TransientError: something does not answer; call it again.
    """
    steps = iter(enumerate(_STEPS))

    def say() -> None:
        number, what = next(steps)
        progress(what, number, len(_STEPS))

    say()
    rows = _find(holdings.zone, holdings.erasures, erasure.sources)
    say()
    holdings.database.erase(_job(erasure, erasure.entity_id, rows))
    say()
    swept = sweep_online(holdings, erasure)
    say()
    taken = _take_out(holdings.zone, holdings.erasures, erasure.sources)
    say()
    in_lake = lake_files.take_out(holdings.lake, holdings.database)
    say()
    holdings.database.vacuum()
    say()
    swept += sweep_online(holdings, erasure)  # of runs that were pushing
    refused = rewrite_files(holdings.redis_urls, timeout_s=holdings.redis_timeout_s)
    holdings.erasures.note(msgspec.structs.replace(erasure, entity_id=""))
    progress("erased", len(_STEPS), len(_STEPS))
    log.info("an erasure of %s was carried out", erasure.entity)
    count = sum(map(len, rows.values()))
    return Erased(rows=count, landed=taken, lake_files=in_lake, online=swept, refused=refused)


def settle(holdings: Holdings, erasure: Erasure) -> Erased:
    """Look once more, when nothing can still be on its way that had read the rows before.

    A batch may become visible after the look for it, with a landing time before the erasure; a run that had read the
    rows may push them after the online store was swept, or die before it could.
    """
    rows = _find(holdings.zone, holdings.erasures, erasure.sources)
    if rows:
        holdings.database.erase(_job(erasure, "", rows))
    swept = sweep_online(holdings, erasure)
    taken = _take_out(holdings.zone, holdings.erasures, erasure.sources)
    refused: Sequence[str] = ()
    if rows or swept:
        lake_files.take_out(holdings.lake, holdings.database)
        holdings.database.vacuum()
        refused = rewrite_files(holdings.redis_urls, timeout_s=holdings.redis_timeout_s)
    holdings.erasures.note(msgspec.structs.replace(erasure, settled=True))
    return Erased(rows=sum(map(len, rows.values())), landed=taken, online=swept, refused=refused)


def is_due(erasure: Erasure, now: datetime) -> bool:
    """Whether it is time to settle it."""
    return not erasure.entity_id and not erasure.settled and to_micros(now - SETTLES_AFTER) >= erasure.erased_at


def erase_again(database: Database, zone: LandingZone) -> bool:
    """Erase what a database has of entities that were erased, after files of a backup were taken over.

    Returns whether anybody ever was erased.
    """
    erasures = zone.erasures
    if erasures is None:
        return False
    kinds = {(one.entity, one.key): one for one in erasures.all()}
    for (entity, key), last in kinds.items():
        database.erase(_job(last, "", _find(zone, erasures, last.sources)))
        for entity_id, erasure in erasures.covering(entity, _ids(database, entity, key)).items():
            database.erase(_job(erasure, entity_id, {}))
    return bool(kinds)


def _ids(database: Database, entity: str, key: Sequence[str]) -> Iterator[str]:
    """The entities of a kind that a database has rows of, logged or quarantined."""
    found = database.query("SELECT target, entity FROM view_versions WHERE dropped_at IS NULL", into=_Version)
    sources = [log_relation(one.target) for one in found if one.entity == entity]
    for relation in [*sources, quarantined_with_key(key)]:
        sql = f"SELECT DISTINCT entity_id FROM {relation} WHERE entity_id IS NOT NULL"
        yield from (row.entity_id for row in database.query(sql, into=_EntityId))


def take_out_again(zone: LandingZone, lake: Lake, database: Database) -> TakenOut:
    """Take every erased row out of landed files and the lake, whoever brought them back."""
    erasures = zone.erasures
    if erasures is None:
        return TakenOut()
    taken = _take_out(zone, erasures, sorted({source for one in erasures.all() for source in one.sources}))
    lake_files.take_out(lake, database)
    return taken


def sweep_online(holdings: Holdings, erasure: Erasure) -> int:
    """Make the online store that of the log: of the entity, and of all of other entities with views of its sources."""
    now, database, erasures = holdings.now(), holdings.database, holdings.erasures
    changed = 0

    def ours(entity_ids: Sequence[str]) -> Sequence[str]:
        return list(erasures.covering(erasure.entity, entity_ids))

    for view in holdings.project.feature_views:
        if view.source.name in erasure.sources and view.online_features:
            chosen = ours if view.entity.name == erasure.entity else everyone
            newest = partial(_newest, database, view)
            changed += sweep(holdings.online, view, newest, chosen=chosen)
            tiles = partial(_tiles, database, view, now)
            changed += sweep_windows(holdings.online, view, tiles, chosen=chosen)
    return changed


def files_with(directory: Path, key: Sequence[str], entity_id: str) -> list[Path]:
    """Training sets below a directory that have rows of an entity; what becomes of them is for people to decide."""
    paths = sorted(directory.rglob("*.parquet")) if directory.is_dir() else []
    return [path for path in paths if entity_id in key_texts_of(read_table(path), key).to_pylist()]


def _find(zone: LandingZone, erasures: Erasures, sources: Sequence[str]) -> dict[str, tuple[int, ...]]:
    rows: dict[str, tuple[int, ...]] = {}
    for source in sources:
        rows |= landed_files.find_erased(zone.storage, erasures, source)
    return rows


def _take_out(zone: LandingZone, erasures: Erasures, sources: Sequence[str]) -> TakenOut:
    with erasures.alone():
        return sum((landed_files.take_out(zone.storage, erasures, one) for one in sources), TakenOut())


def _job(erasure: Erasure, entity_id: str, rows: dict[str, tuple[int, ...]]) -> EraseJob:
    return EraseJob(
        job_id=f"erase {uuid4().hex}",
        entity=erasure.entity,
        key=erasure.key,
        entity_id=entity_id,
        sources=erasure.sources,
        erased_at=from_micros(erasure.erased_at),
        rows=rows,
    )


def _newest(database: Database, view: FeatureView, entity_ids: Sequence[str]) -> pa.Table:
    return newest_rows(database, view, entity_ids=entity_ids)


def _tiles(database: Database, view: FeatureView, now: datetime, entity_ids: Sequence[str]) -> Iterator[pa.Table]:
    return recent_tiles(database, view, now=now, entity_ids=entity_ids)


@dataclass(frozen=True, slots=True)
class _Version:
    target: str
    entity: str


@dataclass(frozen=True, slots=True)
class _EntityId:
    entity_id: str
