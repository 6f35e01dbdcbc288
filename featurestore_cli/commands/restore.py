"""Bring a backup back: its files, a database made of them, and an empty online store, which `up` fills again."""

import argparse
import shutil
from datetime import UTC, datetime
from pathlib import Path

from featurestore.database.queues import empty_queues
from featurestore.online.emptying import empty_online
from featurestore.recovery.backup import Places, restore_files, verify
from featurestore.settings import Settings
from featurestore_cli.commands.rebuild import rebuild_database, show
from featurestore_cli.output import say, show_progress
from featurestore_cli.stack.redis import answers
from featurestore_cli.stack.state import Home


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, help="of `featurestore backup`")


def run(args: argparse.Namespace, settings: Settings) -> int:
    home = Home(settings.data_dir)
    home.open()
    with home.alone(say):
        verify(args.directory, progress=show_progress)
        _empty_online_store(settings, home)
        _set_aside(settings)
        restore_files(args.directory, Places.of(settings), progress=show_progress)
        show(rebuild_database(settings))
    return 0


def _empty_online_store(settings: Settings, home: Home) -> None:
    """Values, and jobs that wait, may be of batches that the backup does not have."""
    own = home.path / "redis" / "appendonlydir"
    if own.exists() and not answers(settings.redis.url):  # the platform's own, which is stopped
        shutil.rmtree(own)
        say("the online store will be filled again")
        return
    empty_queues(settings.redis.queues, settings.namespace)
    removed = empty_online(settings.redis, settings.namespace)
    say(f"{removed} keys removed from Redis; the online store will be filled again")


def _set_aside(settings: Settings) -> None:
    """Nothing is overwritten: what is there goes to a directory of its own."""
    there = [path for path in (settings.landing_dir, settings.lake_dir, settings.database_file.parent) if path.exists()]
    if there:
        aside = settings.data_dir / f"before-restore-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        aside.mkdir(mode=0o700)
        for path in there:
            path.rename(aside / path.name)
        say(f"what was here is in {aside}; remove it when you are sure")
