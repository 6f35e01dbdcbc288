"""What the definitions would change, before it happens."""

import argparse

from featurestore.definitions.changes import Change, Kind
from featurestore.definitions.project import load_project
from featurestore.landing.zone import LandingZone
from featurestore.planning import Plan, make_plan
from featurestore.settings import Settings
from featurestore.store import connect
from featurestore.transform.binding import bind
from featurestore_cli.arguments import add_json
from featurestore_cli.output import amount, complain, count, counted, emit, say, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(args: argparse.Namespace, settings: Settings) -> int:
    project = load_project(settings.project)
    bind(project)
    with connect(project, settings) as store:
        plan = make_plan(project, LandingZone.of(settings), store.database)
    if args.json:
        emit([_values(change) for change in plan.changes])
    else:
        show(plan)
    return 1 if plan.errors else 0


def show(plan: Plan) -> None:
    """The plan as a table, its errors behind it."""
    if not plan.changes:
        say("nothing to do: what is declared is what is there")
        return
    rows = [
        (
            f"{change.kind} {change.view}",
            change.text,
            count(change.missing.batches) if change.kind in {Kind.NEW, Kind.CHANGED} else None,
            amount(change.missing.rows) if change.kind in {Kind.NEW, Kind.CHANGED} else None,
            ", ".join(f"{model} (production)" for model in change.models) or None,
        )
        for change in plan.changes
    ]
    table(rows, ("  view", "change", "batches", "rows", "models"))
    if plan.errors:
        complain(f"{counted(len(plan.errors), 'error')}: " + "\n".join(plan.errors))


def _values(change: Change) -> dict[str, object]:
    return {
        "change": change.kind.name.lower(),
        "view": change.view,
        "version": change.version,
        "text": change.text,
        "batches": change.missing.batches,
        "rows": change.missing.rows,
        "models": change.models,
        "error": change.error,
    }
