"""Newest values of an entity, with ages and statuses; without an id: some recent ids."""

import argparse
from datetime import UTC, datetime

from featurestore.definitions.entity import Entity
from featurestore.definitions.project import load_project
from featurestore.definitions.reference import FeatureOf
from featurestore.definitions.view import FeatureView
from featurestore.errors import TerminalError
from featurestore.offline.newest import recent_entity_ids
from featurestore.settings import Settings
from featurestore.store import Keys, OnlineRow, Store, connect
from featurestore_cli.arguments import add_json, positive_number
from featurestore_cli.output import age, complain, emit, say, table, text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("entity", help="e.g. user")
    parser.add_argument("id", nargs="?", help="the entity's key; of several columns: their values, with commas")
    parser.add_argument(
        "feature", nargs="*", default=[], help="features or views; without: every online feature of the entity"
    )
    parser.add_argument(
        "--limit", type=positive_number, default=10, metavar="N", help="how many recent ids (default: %(default)s)"
    )
    add_json(parser)


def run(args: argparse.Namespace, settings: Settings) -> int:
    project = load_project(settings.project)
    entity = project.entity(args.entity)
    with connect(project, settings) as store:
        if args.id is None:
            views = [view for view in project.feature_views if view.entity == entity]
            return _show_recent(entity, recent_entity_ids(store.database, views, args.limit), as_json=args.json)
        features = _features(store, entity, args.feature)
        [row] = store.online(keys_of(entity, args.id), features)
    if args.json:
        emit(
            {
                name: {"value": v.value, "status": v.status, "event_timestamp": v.event_timestamp}
                for name, v in row.items()
            }
        )
    else:
        _show(entity, args.id, row, {one.name: f"{one.view} v{one.version}" for one in features})
    if all(value.status == "MISSING" for value in row.values()):
        complain(
            f"there is no {entity.name} {args.id} in the online store (what has just landed takes some seconds); "
            f"`featurestore get {entity.name}` lists some"
        )
        return 1
    return 0


def _features(store: Store, entity: Entity, names: list[str]) -> list[FeatureOf]:
    """The named features, or all online ones of the active version of each view of the entity."""
    if not names:
        own = dict.fromkeys(view.name for view in store.project.feature_views if view.entity == entity)
        views = store.find_all(list(own))
        found = [view[one.name] for view in views if isinstance(view, FeatureView) for one in view.online_features]
        if not found:
            raise TerminalError(f"no feature of entity {entity.name!r} is online; set online=True on one")
        return found
    wanted = store.find_all(names)
    return [
        one
        for found in wanted
        for one in (
            [found] if isinstance(found, FeatureOf) else [found[f.name] for f in found.all_features if f.online]
        )
    ]


def keys_of(entity: Entity, text_id: str) -> Keys:
    """The key columns that an id as people type it stands for."""
    values = [text_id] if len(entity.key_columns) == 1 else text_id.split(",")
    if len(values) != len(entity.key_columns):
        raise TerminalError(f"entity {entity.name!r} is identified by {','.join(entity.key_columns)}; got {text_id!r}")
    return {column: [value] for column, value in zip(entity.key_columns, values, strict=True)}


def _show(entity: Entity, text_id: str, row: OnlineRow, view_of: dict[str, str]) -> None:
    now = datetime.now(UTC)
    say(f"{entity.name} {text_id}")
    cells = [
        (f"  {name}", text(value.value), age(value.event_timestamp, now), value.status.lower(), view_of[name])
        for name, value in row.items()
    ]
    table(cells, ("  feature", "value", "age", "status", "view"))


def _show_recent(entity: Entity, ids: list[str], *, as_json: bool) -> int:
    if as_json:
        emit(ids)
    elif ids:
        say(f"recent ids of {entity.name}; `featurestore get {entity.name} {ids[0]}` shows one")
        for one in ids:
            say(f"  {one}")
    else:
        complain(f"no {entity.name} has arrived yet")
        return 1
    return 0
