"""The `featurestore` command: one verb per intent."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

from featurestore.errors import DatabaseBusyError, FeatureStoreError, SettingsError, StoreUnavailableError
from featurestore.settings import Settings
from featurestore_cli.output import complain

DONE, FAILED, USAGE, NO_ANSWER = 0, 1, 2, 3

# What `featurestore --help` prints; a command's module is imported when the command is called.
COMMANDS = {
    "init": "a small project of your own",
    "up": "start the whole platform and show it",
    "down": "stop it",
    "status": "what runs, and what was counted",
    "logs": "what a process wrote",
    "doctor": "what is wrong, and what to do",
    "run": "run one process in the foreground",
    "get": "newest values of an entity, with ages and statuses",
    "explain": "where one value comes from",
    "follow": "send one record and watch it become a value",
    "sql": "ask the database (read-only)",
    "features": "what is declared",
    "plan": "what the definitions would change",
    "apply": "do it",
    "views": "the versions of views, and which is active",
    "upload": "send a file to a source",
    "batches": "landed batches that wait or are parked; release them",
    "dead-letters": "records that could not be landed",
    "models": "push, promote and roll back models; what is served",
    "training-set": "what was known of entities at given times",
    "backup": "copy everything into a directory, and verify it",
    "restore": "bring a backup back",
    "rebuild": "make the database anew from what landed",
    "erase": "take away everything of an entity, for ever",
}


class Command(Protocol):
    """A module of featurestore_cli.commands."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace, settings: Settings) -> int: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 failed, 2 wrong usage, 3 a service does not answer."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="featurestore", description="A feature store on Dagster.")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    named = next((word for word in words if not word.startswith("-")), None)
    command: Command | None = None
    for name, help_text in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=help_text, description=help_text)
        if name == named:
            command = cast(Command, import_module(f"featurestore_cli.commands.{name.replace('-', '_')}"))
            command.add_arguments(subparser)
    args = parser.parse_args(words)
    assert command is not None  # argparse has refused everything else
    settings: Settings | None = None
    try:
        settings = Settings.from_env(os.environ)  # noqa: TID251  # the entry point
        return command.run(args, settings)
    except (StoreUnavailableError, DatabaseBusyError) as error:
        complain(f"error: {error}{_elsewhere(error, settings)}")
        return NO_ANSWER
    except FeatureStoreError as error:
        complain(f"error: {error}{_elsewhere(error, settings)}")
        return FAILED
    except KeyboardInterrupt:
        return FAILED
    except BrokenPipeError:  # `featurestore … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:  # a path that cannot be read or written, a full disk
        complain(f"error: {error.filename}: {error.strerror}" if error.filename else f"error: {error}")
        return FAILED


def _elsewhere(error: FeatureStoreError, settings: Settings | None) -> str:
    """Where no platform has ever been: what may be the matter if none answers, or somebody else's."""
    absent = isinstance(error, StoreUnavailableError | DatabaseBusyError | SettingsError)
    if settings is None or not absent or settings.data_dir.is_dir():
        return ""
    return f"; there is no {settings.data_dir} here: is this the directory of your project?"


if __name__ == "__main__":
    sys.exit(main())
