"""The database made anew: the lake's files are taken over, everything else that landed is applied once more."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from featurestore.apply import Applied, apply_batches
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.database.vacuum import remove_database, wal_of
from featurestore.definitions.project import Project
from featurestore.errors import TransientError
from featurestore.landing.disk import fsync_directory
from featurestore.landing.zone import LandingZone
from featurestore.offline.lake import Lake
from featurestore.offline.log import Ledger
from featurestore.offline.tables import schema_job
from featurestore.recovery.erase import erase_again, take_out_again

Progress = Callable[[str, int, int], None]  # what is being applied, how many of its batches are, of how many

_BATCHES = 200  # applied at a time, between two reports of progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What the new database holds."""

    lake_rows: int
    applied: Applied


def rebuild(project: Project, file: Path, zone: LandingZone, lake: Lake, *, progress: Progress) -> Rebuilt:
    """Make the database `file` from the landing zone and the lake, in the place of what may be there.

    Nobody may use the file. It is replaced when the new one is whole; whatever ends this earlier changes nothing. Every
    row is as it was but for its commit_seq, which is a later one. Every declared view gets every landed batch. Rows of
    entities that were erased do not come back; where files of a backup hold them, they are taken out once more.

    Raises:
        TransientError: another process holds the file.
        CorruptFileError: a file of the lake or the landing zone is damaged.
        JobRefusedError: a view was changed and kept its version.
    """
    check_free(file)
    unfinished = file.with_name(f"{file.name}.unfinished")
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    remove_database(unfinished)
    manifest = lake.manifest()
    with closing(EmbeddedDatabase(unfinished, lake_dir=lake.root)) as database:
        for log in manifest.logs if manifest else ():
            database.adopt(log.table, log.files, log.registered_at, active=log.active)
        somebody_was_erased = erase_again(database, zone)
        database.ensure(schema_job(project))
        ledger, applied = Ledger(), Applied()
        ledger.refresh(database)
        for view in project.feature_views:
            landed = zone.batches(view.source.name)
            missing = [batch for batch in landed if (batch.batch_id, view.target) not in ledger.rows]
            for start in range(0, len(missing), _BATCHES):
                progress(view.target, start, len(missing))
                applied += apply_batches(view, missing[start : start + _BATCHES], zone, database, None)
            progress(view.target, len(missing), len(missing))
        if manifest is not None:
            lake.publish(database, datetime.now(UTC))
    wal_of(file).unlink(missing_ok=True)  # only a damaged one still has one
    unfinished.replace(file)
    fsync_directory(file.parent)
    if somebody_was_erased:
        with closing(EmbeddedDatabase(file, lake_dir=lake.root)) as database:
            take_out_again(zone, lake, database)
            database.vacuum()
    lake_rows = sum(one.row_count for log in (manifest.logs if manifest else ()) for one in log.files if one.is_rows)
    return Rebuilt(lake_rows=lake_rows, applied=applied)


def check_free(file: Path) -> None:
    """Raises TransientError when another process holds the database file."""
    if not file.exists():
        return
    try:
        duckdb.connect(str(file)).close()
    except duckdb.IOException as error:
        if "lock" in str(error):
            raise TransientError(f"{file} is in use: {error}") from error
    except duckdb.Error:
        pass  # damaged, which may be why it is made anew
