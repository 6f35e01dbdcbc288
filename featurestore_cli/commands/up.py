"""Start the whole platform and show it; Ctrl-C drains and stops it."""

import argparse
import os
from collections.abc import Mapping

from featurestore.settings import Settings
from featurestore_cli.stack.detach import start_detached
from featurestore_cli.stack.state import Home


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", "--detach", action="store_true", help="return when everything is ready; `down` stops it")
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
    # Here and not at the top: who only waits for the other process has no use for all of it.
    from featurestore_cli.stack.foreground import run_logged, run_shown

    run_here = run_logged if args.detached else run_shown
    run_here(home, settings, environ, generator=args.generator)
    return 0
