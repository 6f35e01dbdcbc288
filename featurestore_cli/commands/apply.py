"""Make the platform what the definitions say: tables, code, history, active versions."""

import argparse

from featurestore.definitions.project import load_project
from featurestore.errors import TerminalError
from featurestore.landing.zone import LandingZone
from featurestore.planning import make_plan
from featurestore.settings import Settings
from featurestore.store import connect
from featurestore.transform.binding import bind
from featurestore_cli.commands.plan import show
from featurestore_cli.rollout import INGEST, SERVER, Rollout, restart
from featurestore_cli.stack.jobs import create_topics
from featurestore_cli.stack.state import Home
from featurestore_cli.webserver import Webserver


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-wait", action="store_true", help="return when the backfill has been started")


def run(args: argparse.Namespace, settings: Settings) -> int:
    project = load_project(settings.project)
    bind(project)
    home, zone = Home(settings.data_dir), LandingZone.of(settings)
    webserver = _webserver(home, settings)
    with connect(project, settings) as store:
        plan = make_plan(project, zone, store.database)
        show(plan)
        if plan.errors:
            return 1
        rollout = Rollout(store, zone, webserver, namespace=settings.namespace)
        if plan.changed_sources:
            create_topics(settings)
        rollout.register()
        if plan.changed_sources:
            restart(home, INGEST)
        rollout.backfill()
        if not args.no_wait:
            rollout.wait()
        restart(home, [SERVER])  # not before history is there: until then it serves what it knows
        if not args.no_wait:
            rollout.finish(plan.changes)
    return 0


def _webserver(home: Home, settings: Settings) -> Webserver:
    """Of the running platform, or the one that is set."""
    state = home.state() if home.running() else None
    url = settings.dagster.url or (state.dagster_url if state else "")
    if not url:
        raise TerminalError(
            "no Dagster runs here: `featurestore up`, or name its webserver by FEATURESTORE_DAGSTER_URL"
        )
    return Webserver(url)
