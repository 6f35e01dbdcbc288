"""`up` in a terminal or a pipe, and as what `up -d` starts: the same platform, shown in different ways."""

import logging
import sys
from collections.abc import Mapping
from logging.handlers import RotatingFileHandler

from rich.console import Console

from featurestore.definitions.project import load_project
from featurestore.settings import Settings
from featurestore_cli.output import say
from featurestore_cli.stack.board import Board, Counting, Lines
from featurestore_cli.stack.counts import Counter
from featurestore_cli.stack.detach import LOG_BYTES, LOG_NAME
from featurestore_cli.stack.platform import Closing, Running, run_platform
from featurestore_cli.stack.state import Home


def run_shown(home: Home, settings: Settings, environ: Mapping[str, str], *, generator: bool | None) -> None:
    """Run the platform and show it, until a signal ends it."""
    project = load_project(settings.project)  # first: a mistake in the definitions should be all that one sees

    def show(running: Running) -> Closing:
        counting = Counting(Counter(running.settings, project).read)
        console = Console()
        if console.is_terminal:
            return Board(console, counting, running.dagster_url)
        return Lines(say, counting, running.dagster_url)

    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)  # clients of services that are still starting complain
    run_platform(home, settings, environ, generator=generator, say=say, show=show)
    say("everything has stopped")


def run_logged(home: Home, settings: Settings, environ: Mapping[str, str], *, generator: bool | None) -> None:
    """Run the platform and write what happens to a log of bounded size; nobody looks, so nothing is counted."""
    load_project(settings.project)
    home.open()
    handler = RotatingFileHandler(home.logs / LOG_NAME, maxBytes=LOG_BYTES, backupCount=1)
    logging.basicConfig(level=logging.ERROR, format="%(message)s", handlers=[handler])
    log = logging.getLogger("featurestore_cli.up")
    log.setLevel(logging.INFO)

    def show(running: Running) -> Closing:
        return Lines(log.info, None, running.dagster_url)

    run_platform(home, settings, environ, generator=generator, say=log.info, show=show)
    log.info("everything has stopped")
