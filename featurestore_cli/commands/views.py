"""Versions of views: views list, views activate NAME VERSION."""

import argparse
from collections.abc import Mapping

from featurestore.definitions.project import Project, load_project
from featurestore.errors import TerminalError
from featurestore.offline.log import TargetCounts, accounting
from featurestore.offline.versions import LoggedVersion, logged_versions
from featurestore.settings import Settings
from featurestore.store import Store, connect
from featurestore_cli.arguments import add_json
from featurestore_cli.output import emit, records, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|activate")
    listing = verbs.add_parser("list", help="every version of every view, and which is active")
    add_json(listing)
    activating = verbs.add_parser("activate", help="choose what readers that name no version get; it stays")
    activating.add_argument("name", help="of the view")
    activating.add_argument("version", type=int)


def run(args: argparse.Namespace, settings: Settings) -> int:
    project = load_project(settings.project)
    with connect(project, settings) as store:
        known = [one for one in logged_versions(store.database) if not one.dropped]
        counts = {one.target: one for one in accounting(store.database)}
        if args.verb == "activate":
            return _activate(store, known, counts, args.name, args.version)
    rows = [_row(one, counts[one.target], project) for one in known]
    if args.json:
        emit(rows)
    else:
        records(rows, ("view", "version", "state", "batches", "rows", "registered"))
    return 0


def _row(one: LoggedVersion, counts: TargetCounts, project: Project) -> dict[str, object]:
    is_declared = any(view.target == one.target for view in project.feature_views)
    return {
        "view": one.view,
        "version": one.version,
        "state": ("active" if one.active else "beside") + ("" if is_declared else ", not declared"),
        "batches": counts.batches,
        "rows": counts.rows_in,
        "registered": one.registered_at,
    }


def _activate(
    store: Store, known: list[LoggedVersion], counts: Mapping[str, TargetCounts], name: str, version: int
) -> int:
    versions = {one.version: one for one in known if one.view == name}
    if version not in versions:
        raise TerminalError(f"view {name!r} has no version {version} in the log; `featurestore views list` shows all")
    before = next(one for one in versions.values() if one.active)
    store.activate(name, version)
    say(f"{name} v{version} is active")
    own, others = counts[versions[version].target].batches, counts[before.target].batches
    if own < others:
        say(f"it has {own} batches, v{before.version} has {others}; `featurestore plan` says what is missing")
    return 0
