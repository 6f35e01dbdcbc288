"""Ask the database service (read-only), e.g. featurestore sql "SELECT count(*) FROM features"."""

import argparse

from featurestore.database.client import QueueDatabase
from featurestore.settings import Settings
from featurestore_cli.arguments import add_json
from featurestore_cli.output import emit, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", help="one SELECT")
    add_json(parser)


def run(args: argparse.Namespace, settings: Settings) -> int:
    database = QueueDatabase.of(settings)
    try:
        rows = database.query_arrow(args.query)
    finally:
        database.close()
    if args.json:
        emit(rows.to_pylist())
    else:
        columns = [column.to_pylist() for column in rows.columns]  # by place: two may have one name
        table(list(zip(*columns, strict=True)), rows.column_names)
    return 0
