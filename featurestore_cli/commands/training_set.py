"""Training sets: training-set build, reproduce RECEIPT, diff RECEIPT."""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from featurestore.definitions.durations import duration
from featurestore.definitions.project import Project, load_project
from featurestore.errors import TerminalError
from featurestore.settings import Settings
from featurestore.store import connect
from featurestore.training.diff import Difference
from featurestore.training.files import check_writable, read_receipt, read_table, write_table, write_training_set
from featurestore.training.receipt import Receipt
from featurestore.training.training_set import TrainingSet
from featurestore_cli.arguments import add_json
from featurestore_cli.output import count, counted, emit, say, show_progress, table, text

SHOWN_CELLS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="build|reproduce|diff")
    building = verbs.add_parser("build", help="join features to the rows of a file")
    building.add_argument("--spine", type=Path, required=True, help="Parquet or CSV: keys, times, labels")
    building.add_argument("--features", required=True, help="features and views, with commas")
    building.add_argument("--known-at", default="none", help="none, row, or a time like 2026-05-04T12:00:00Z")
    building.add_argument("--delay", help="with --known-at row: rows count so long after they landed, e.g. 5m")
    building.add_argument("--time", default="event_timestamp", help="the column with the rows' times")
    building.add_argument("--time-zone", help="of times that have none, e.g. Europe/Berlin")
    building.add_argument("--out", type=Path, required=True, help="Parquet or CSV; the receipt goes beside it")
    add_json(building)
    for name, what in (("reproduce", "make the training set of a receipt again"), ("diff", "what it would be now")):
        verb = verbs.add_parser(name, help=what)
        verb.add_argument("receipt", type=Path)
        verb.add_argument("--spine", type=Path, help="where the spine is now, if it was moved")
        add_json(verb)
        if name == "reproduce":
            verb.add_argument("--out", type=Path, help="write it; without, it is only compared")


def run(args: argparse.Namespace, settings: Settings) -> int:
    project = load_project(settings.project)
    verbs: dict[str, Callable[[argparse.Namespace, Settings, Project], int]] = {
        "build": _build,
        "reproduce": _reproduce,
        "diff": _diff,
    }
    return verbs[args.verb](args, settings, project)


def _build(args: argparse.Namespace, settings: Settings, project: Project) -> int:
    check_writable(args.out)
    spine = read_table(args.spine)
    start = time.monotonic()
    with connect(project, settings) as store:
        made = store.training_set(
            spine,
            store.find_all([name.strip() for name in args.features.split(",")]),
            time=args.time,
            time_zone=args.time_zone,
            known_at=_known_at(args.known_at),
            delay=duration(args.delay, "--delay") if args.delay else timedelta(0),
            progress=show_progress,
        )
    took_s = time.monotonic() - start
    receipt, receipt_file = made.receipt, write_training_set(args.out, made, args.spine)
    if args.json:
        emit({"out": str(args.out), "receipt": str(receipt_file), "rows": receipt.rows, "sha256": receipt.sha256})
        return 0
    entities = sorted({view.entity for view in receipt.plan.views})
    read = (f"{one.view} v{one.version} ({count(receipt.inputs[one.target].rows)} rows)" for one in receipt.plan.views)
    say(f"spine     {count(len(made))} rows, {counted(len(entities), 'entity', 'entities')} ({', '.join(entities)})")
    say(f"inputs    {', '.join(read)}")
    say(f"join      {count(len(made))} rows  {took_s:.1f} s")
    width = max(len(str(args.out)), len(str(receipt_file)))
    columns = f"{made.table.num_columns} columns"
    say(f"{args.out!s:{width}}  {count(len(made))} rows  {columns}  sha256 {receipt.sha256[:8]}…")
    say(f"{receipt_file!s:{width}}  featurestore training-set reproduce {receipt_file}")
    return 0


def _reproduce(args: argparse.Namespace, settings: Settings, project: Project) -> int:
    if args.out:
        check_writable(args.out)
    receipt = read_receipt(args.receipt)
    with connect(project, settings) as store:
        made = store.reproduce(receipt, read_table(_spine_file(args, receipt)), progress=show_progress)
    if args.out:
        write_table(args.out, made.table)
    if args.json:
        emit({"rows": made.receipt.rows, "sha256": made.receipt.sha256, "same": True})
    else:
        say(f"the same {count(made.receipt.rows)} rows  sha256 {made.receipt.sha256[:8]}…")
    return 0


def _diff(args: argparse.Namespace, settings: Settings, project: Project) -> int:
    receipt = read_receipt(args.receipt)
    with connect(project, settings) as store:
        changes = store.changes(receipt, read_table(_spine_file(args, receipt)), progress=show_progress)
    found = changes.difference
    if args.json:
        emit({"rows": found.rows, "changed": found.changed, "cells": [asdict(cell) for cell in found.cells]})
    else:
        _show(found, changes.then)
    return 0


def _show(found: Difference, made: TrainingSet) -> None:
    changed = {name: cells for name, cells in found.changed.items() if cells}
    if not changed:
        say(f"nothing changed in {count(found.rows)} rows")
        return
    each = ", ".join(f"{name} {count(cells)}" for name, cells in changed.items())
    say(f"{count(sum(changed.values()))} cells changed in {count(found.rows)} rows: {each}")
    keys = [*dict.fromkeys(column for key in made.receipt.plan.keys for column in key), made.receipt.time]
    rows = [
        [cell.row, *_cells(made, keys, cell.row), cell.column, text(cell.before), text(cell.after)]
        for cell in found.cells[:SHOWN_CELLS]
    ]
    table(rows, ["row", *keys, "feature", "then", "now"])
    if sum(changed.values()) > SHOWN_CELLS:
        say("… (--json names more)")


def _cells(made: TrainingSet, columns: Sequence[str], row: int) -> list[object]:
    return [made.table.column(name)[row].as_py() for name in columns]


def _known_at(given: str) -> datetime | Literal["row"] | None:
    if given == "none":
        return None
    if given == "row":
        return "row"
    try:
        return datetime.fromisoformat(given)
    except ValueError as error:
        raise TerminalError(f"--known-at {given!r} is not none, row or a time like 2026-05-04T12:00:00Z") from error


def _spine_file(args: argparse.Namespace, receipt: Receipt) -> Path:
    if args.spine is None and not receipt.spine_file:
        raise TerminalError("the receipt does not say where its spine is; give --spine FILE")
    return args.spine or args.receipt.parent / receipt.spine_file
