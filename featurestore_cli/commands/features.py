"""What is declared: features list, features show NAME."""

import argparse

from featurestore.definitions.feature import Aggregation, Feature
from featurestore.definitions.project import Project, load_project
from featurestore.definitions.reference import FeatureOf
from featurestore.definitions.view import DerivedView, View
from featurestore.settings import Settings
from featurestore_cli.arguments import add_json
from featurestore_cli.output import emit, records, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|show")
    listing = verbs.add_parser("list", help="every feature")
    add_json(listing)
    showing = verbs.add_parser("show", help="one feature or view")
    showing.add_argument("name")
    add_json(showing)


def run(args: argparse.Namespace, settings: Settings) -> int:
    project = load_project(settings.project)
    if args.verb == "list":
        rows = [row for view in project.views for row in _rows(view)]
        emit(rows) if args.json else records(rows, ("feature", "type", "view", "online", "max_age"))
        return 0
    found = project.find(args.name)
    view = _view(project, found)
    shown = {
        "view": f"{view.name} v{view.version}",
        "entity": "–" if isinstance(view, DerivedView) else view.entity.name,
        "source": "–" if isinstance(view, DerivedView) else view.source.name,
        "owner": view.owner or "–",
        "description": view.description or "–",
    }
    if isinstance(found, FeatureOf):
        shown = {"feature": found.name, "type": found.feature.dtype.__name__, **shown, "sql": _sql(view, found.name)}
    else:
        shown["features"] = ", ".join(feature.name for feature in view.all_features)
    if args.json:
        emit(shown)
    else:
        for name, value in shown.items():
            say(f"{name:12} {value}")
    return 0


def _rows(view: View) -> list[dict[str, object]]:
    return [
        {
            "feature": feature.name,
            "type": feature.dtype.__name__,
            "view": f"{view.name} v{view.version}",
            "online": "derived" if isinstance(view, DerivedView) else feature.online,
            "max_age": feature.max_age,
        }
        for feature in view.all_features
    ]


def _view(project: Project, found: FeatureOf | View) -> View:
    return project.view(found.view, found.version) if isinstance(found, FeatureOf) else found


def _sql(view: View, name: str) -> str:
    """How a feature is computed: its own expression, or the aggregation's function over its input."""
    for declared in view.features:
        if isinstance(declared, Aggregation) and name in {feature.name for feature in declared.features}:
            window = name.removeprefix(f"{declared.name}_")
            where = "" if declared.where == "true" else f" where {declared.where}"
            return f"{declared.function}({declared.sql}){where}, over {window}"
        if isinstance(declared, Feature) and name == declared.name:
            return declared.expression
    return "–"
