"""Run one process of the platform in the foreground."""

import argparse
from collections.abc import Callable
from importlib import import_module
from typing import cast

from featurestore.process.logs import configure
from featurestore.settings import Settings

PROCESSES = {
    "database": "featurestore_cli.database",
    "kafka": "ingest.kafka.daemon",
    "grpc": "ingest.grpc.daemon",
    "generator": "ingest.generator.daemon",
    "server": "featurestore_serving.daemon",
    "exporter": "featurestore_dagster.exporter.daemon",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=PROCESSES, help="which: %(choices)s", metavar="NAME")


def run(args: argparse.Namespace, settings: Settings) -> int:
    configure(settings.log_level, settings.log_format)
    # By name, so that one process does not import what only the others need.
    main = cast("Callable[[Settings], int]", import_module(PROCESSES[args.name]).main)
    return main(settings)
