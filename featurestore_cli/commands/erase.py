"""Take away everything of an entity: landed rows, dead letters, log, lake, online values, and their bytes."""

import argparse
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

from featurestore.definitions.entity import Entity
from featurestore.definitions.project import Project, load_project
from featurestore.entity_id import entity_id
from featurestore.errors import TerminalError
from featurestore.landing.zone import LandingZone
from featurestore.offline.lake import Lake
from featurestore.recovery.erase import Erased, Holdings, carry_out, decide, files_with
from featurestore.settings import Settings
from featurestore.store import connect
from featurestore_cli.commands.get import keys_of
from featurestore_cli.output import complain, count, say, show_progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("entity", help="e.g. user")
    parser.add_argument("id", nargs="+", help="its keys; of several columns: their values, with commas")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(args: argparse.Namespace, settings: Settings) -> int:
    project = load_project(settings.project)
    entity = project.entity(args.entity)
    ids = [_id(project, entity, text) for text in args.id]
    if not args.yes and not _confirmed(entity, args.id):
        complain("nothing was erased")
        return 1
    with connect(project, settings) as store:
        holdings = Holdings(
            project=project,
            zone=LandingZone.of(settings),
            database=store.database,
            lake=Lake(settings.lake_dir.absolute()),
            online=store.online_store,
            redis_urls=settings.redis.urls,
            redis_timeout_s=settings.redis.timeout_s,
        )
        for one in ids:
            erasure = decide(holdings, entity, one, datetime.now(UTC))
            _show(entity, one, carry_out(holdings, erasure, progress=show_progress))
            for line in _left(settings, entity, one):
                say(f"  {line}")
    return 0


def _id(project: Project, entity: Entity, text: str) -> str:
    """The canonical text: another one would find nothing."""
    keys = keys_of(entity, text)
    for view in project.feature_views:
        for column in entity.key_columns if view.entity == entity else ():
            value = str(keys[column][0])
            if view.source.columns[column].dtype is int and value != _whole(value):
                raise TerminalError(f"{column} is a whole number, and {value!r} is not the text of one")
    return entity_id([keys[column][0] for column in entity.key_columns])


def _whole(text: str) -> str | None:
    try:
        return str(int(text))
    except ValueError:
        return None


def _confirmed(entity: Entity, ids: list[str]) -> bool:
    if not sys.stdin.isatty():
        raise TerminalError("an erasure is for ever, and nobody can be asked here; say --yes if it is meant")
    named = f"{entity.name} {', '.join(ids)}"
    return input(f"everything of {named} goes, for ever; say yes: ").strip().lower() in {"y", "yes"}


def _show(entity: Entity, one: str, erased: Erased) -> None:
    say(
        f"{entity.name} {one}: {count(erased.rows)} landed rows and {count(erased.landed.dead_letters)} dead letters "
        f"are gone, from {count(erased.landed.files)} landed files, {count(erased.lake_files)} of the lake, "
        "the log and the online store"
    )
    for reason in erased.refused:
        complain(f"a Redis keeps its files as they are until it writes them anew: {reason}")


def _left(settings: Settings, entity: Entity, one: str) -> Iterator[str]:
    """What holds rows still, and is for people to decide about."""
    yield "Kafka keeps its records for as long as its topics are kept; backups that were made before hold the rows:"
    yield "make a new one and remove them. Rows that land from now on are kept."
    for path in files_with(settings.training_sets_dir, entity.key_columns, one):
        yield f"a training set holds it: {path}"
    for path in sorted(settings.data_dir.glob("before-restore-*")):
        yield f"set aside by a restore, it may hold it: {path}"
