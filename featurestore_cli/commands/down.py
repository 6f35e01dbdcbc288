"""Stop the platform that `up` started, and wait until all of it is gone."""

import argparse
import os
import signal
import threading
import time
from contextlib import suppress

import psutil

from featurestore.settings import Settings
from featurestore_cli.arguments import seconds
from featurestore_cli.output import complain, say
from featurestore_cli.stack.state import Home


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout", type=seconds, default=180.0, metavar="S", help="how long to wait (default: %(default)g)"
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    home = Home(settings.data_dir)
    pid = home.running()
    if pid is None and not home.leftovers():
        say("the platform is not running")
        return 0
    if pid:
        say(f"stopping (process {pid})")
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    never, deadline = threading.Event(), time.monotonic() + args.timeout
    while home.running() is not None or home.leftovers() or (pid and _is_there(pid)):
        if time.monotonic() > deadline:
            complain(f"error: not everything has ended within {args.timeout:g} s: `featurestore status`")
            return 1
        never.wait(0.1)
    say("everything has stopped")
    return 0


def _is_there(pid: int) -> bool:
    """Whether the process itself is still ending, after it has let everything go."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
