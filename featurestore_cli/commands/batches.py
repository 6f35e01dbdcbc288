"""Landed batches that are not in the log yet: batches list, batches release."""

import argparse
from datetime import datetime

import dagster as dg

from featurestore.definitions.project import load_project
from featurestore.errors import TerminalError
from featurestore.landing.batch import utc_now
from featurestore.landing.pending import Pending, Trouble, find_pending
from featurestore.settings import Settings
from featurestore_cli.arguments import add_json
from featurestore_cli.output import age, complain, emit, records, say
from featurestore_dagster.names import Keys
from featurestore_dagster.parking import release, sensor_cursor
from featurestore_dagster.services import connect

_COLUMNS = ("batch", "rows", "landed", "waits for", "state")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|release")
    listing = verbs.add_parser("list", help="what waits, since when and why; parked batches first")
    add_json(listing)
    releasing = verbs.add_parser("release", help="have parked batches tried again")
    releasing.add_argument("batch", nargs="*", help="ids as `batches list` names them")
    releasing.add_argument("--all", action="store_true", help="every parked batch")


def run(args: argparse.Namespace, settings: Settings) -> int:
    if not (settings.dagster_home / "dagster.yaml").exists():
        raise TerminalError(f"there is no Dagster in {settings.dagster_home} yet; `featurestore up` makes it")
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        return _list(args, settings, instance) if args.verb == "list" else _release(args, settings, instance)


def _list(args: argparse.Namespace, settings: Settings, instance: dg.DagsterInstance) -> int:
    troubles, now = sensor_cursor(instance, Keys(settings.namespace)).troubles, utc_now()
    waiting = _pending(settings)
    waiting.sort(key=lambda one: (not _is_parked(troubles.get(one.batch.batch_id)), one.batch.created_at))
    rows = [_row(one, troubles.get(one.batch.batch_id), now) for one in waiting]
    if args.json:
        emit(rows)
    elif rows:
        records(
            [{**row, "landed": age(one.batch.created_at, now)} for row, one in zip(rows, waiting, strict=True)],
            _COLUMNS,
        )
    else:
        complain("nothing waits: every landed batch is in the log of its views")
    return 0


def _release(args: argparse.Namespace, settings: Settings, instance: dg.DagsterInstance) -> int:
    parked = sensor_cursor(instance, Keys(settings.namespace)).parked
    chosen = parked if args.all else frozenset(args.batch)
    if not chosen:
        complain("no batch is parked" if args.all else "name the batches, or say --all")
        return 0 if args.all else 2
    if unknown := sorted(chosen - parked):
        raise TerminalError(f"{unknown[0]} is not parked; `featurestore batches list` shows what is")
    release(instance, chosen, utc_now())
    say(f"{len(chosen)} released; the sensor tries {'it' if len(chosen) == 1 else 'them'} again with its next tick")
    return 0


def _pending(settings: Settings) -> list[Pending]:
    project = load_project(settings.project)
    with connect(settings)() as services:
        ledger = services.backlog.ledger(project, services.database)
        return find_pending(services.landing.batches(), services.backlog.targets(), ledger.rows, unpushed=())


def _row(one: Pending, trouble: Trouble | None, now: datetime) -> dict[str, object]:
    return {
        "batch": one.batch.batch_id,
        "rows": one.batch.rows,
        "landed": one.batch.created_at,
        "waits for": ", ".join(sorted(one.targets)),
        "state": _state(trouble, now),
    }


def _state(trouble: Trouble | None, now: datetime) -> str:
    if trouble is None:
        return "waits"
    if trouble.parked:
        return f"parked: {trouble.reason}"
    wait_s = max(0, round((trouble.not_before - now).total_seconds()))
    return f"failed {trouble.tries} times, again in {wait_s} s: {trouble.reason}"


def _is_parked(trouble: Trouble | None) -> bool:
    return trouble is not None and trouble.parked
