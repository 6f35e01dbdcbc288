"""Start the whole platform and show it; Ctrl-C drains and stops it."""

import argparse
import logging
import os
import sys
from collections.abc import Mapping
from logging.handlers import RotatingFileHandler

from rich.console import Console

from featurestore.definitions.project import load_project
from featurestore.settings import Settings
from featurestore_cli.output import say
from featurestore_cli.stack.board import Board, Counting, Lines
from featurestore_cli.stack.counts import Counter
from featurestore_cli.stack.detach import LOG_BYTES, LOG_NAME, start_detached
from featurestore_cli.stack.platform import Closing, Running, run_platform
from featurestore_cli.stack.state import Home


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-d", "--detach", action="store_true", help="return when everything is ready; stop it with `down`"
    )
    parser.add_argument(
        "--generator",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="make events and files (default: only for a Kafka that `up` started itself)",
    )
    parser.add_argument("--detached", action="store_true", help=argparse.SUPPRESS)  # what --detach starts


def run(args: argparse.Namespace, settings: Settings) -> int:
    environ: Mapping[str, str] = os.environ  # noqa: TID251  # for the programs that are started, and to see what is set
    home = Home(settings.data_dir)
    if args.detach:
        return start_detached(home, environ, generator=args.generator)
    # Before anything is started: a mistake in the definitions should be all that one sees.
    project = load_project(settings.project)
    if args.detached:
        return _run_detached(home, settings, environ, args.generator)

    def show(running: Running) -> Closing:
        counting = Counting(Counter(running.settings, project).read)
        console = Console()
        if console.is_terminal:
            return Board(console, counting, running.dagster_url)
        return Lines(say, counting, running.dagster_url)

    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)  # clients of services that are still starting complain
    run_platform(home, settings, environ, generator=args.generator, say=say, show=show)
    say("everything has stopped")
    return 0


def _run_detached(home: Home, settings: Settings, environ: Mapping[str, str], generator: bool | None) -> int:
    """Write to a log of bounded size what would be shown; nobody looks, so nothing is counted."""
    home.open()
    handler = RotatingFileHandler(home.logs / LOG_NAME, maxBytes=LOG_BYTES, backupCount=1)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("featurestore_cli.up")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    run_platform(
        home,
        settings,
        environ,
        generator=generator,
        say=log.info,
        show=lambda running: Lines(log.info, None, running.dagster_url),
    )
    log.info("everything has stopped")
    return 0
