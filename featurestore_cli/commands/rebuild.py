"""Make the database anew from the landing zone and the lake; the platform must be stopped."""

import argparse

from featurestore.definitions.project import load_project
from featurestore.landing.zone import LandingZone
from featurestore.offline.lake import Lake
from featurestore.recovery.rebuild import Rebuilt, rebuild
from featurestore.settings import Settings
from featurestore_cli.output import count, say, show_progress
from featurestore_cli.stack.state import Home


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace, settings: Settings) -> int:
    home = Home(settings.data_dir)
    home.open()
    with home.alone(say):
        show(rebuild_database(settings))
    return 0


def rebuild_database(settings: Settings) -> Rebuilt:
    """Nothing of the platform may run."""
    zone, lake = LandingZone.of(settings), Lake(settings.lake_dir.absolute())
    return rebuild(load_project(settings.project), settings.database_file, zone, lake, progress=show_progress)


def show(rebuilt: Rebuilt) -> None:
    applied = rebuilt.applied
    say(f"{count(rebuilt.lake_rows)} rows taken over from the lake")
    say(f"{count(applied.logged)} rows logged from {count(applied.new_batches)} landed batches")
    say("`featurestore up` fills the online store again; materialize models/metadata for the table of models")
