"""Where one value comes from: definition, row, batch, run, and what is online."""

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime

import pyarrow as pa

from featurestore.definitions.entity import Entity
from featurestore.definitions.project import Project, load_project
from featurestore.definitions.reference import FeatureOf
from featurestore.definitions.view import DerivedView, FeatureView, View
from featurestore.entity_id import entity_id
from featurestore.errors import CorruptFileError, SettingsError, TerminalError
from featurestore.landing.zone import LandingZone
from featurestore.offline.story import Story, story
from featurestore.settings import Settings
from featurestore.store import Keys, Store, connect
from featurestore_cli.commands.get import keys_of
from featurestore_cli.output import age, complain, say, text
from featurestore_cli.stack.state import Home

WIDTH = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("entity", help="e.g. user")
    parser.add_argument("id", help="the entity's key; of several columns: their values, with commas")
    parser.add_argument("feature", help="e.g. age_years; a derived feature is explained by its inputs")


def run(args: argparse.Namespace, settings: Settings) -> int:
    project = load_project(settings.project)
    entity = project.entity(args.entity)
    keys = keys_of(entity, args.id)
    found = False
    with connect(project, settings) as store:
        for part in _stored(project, _feature(store, args.feature)):
            found |= _explain(store, settings, entity, keys, part)
    if not found:
        complain(f"nothing has arrived for {entity.name} {args.id}")
    return 0 if found else 1


def _feature(store: Store, name: str) -> FeatureOf:
    found = store.find(name)
    if not isinstance(found, FeatureOf):
        raise TerminalError(f"{name!r} is a view; explain one of its features: {', '.join(_names(found))}")
    return found


def _names(view: View) -> list[str]:
    return [feature.name for feature in view.all_features]


def _stored(project: Project, one: FeatureOf) -> Iterator[FeatureOf]:
    """The feature itself, or what a derived one is computed from."""
    view = project.view(one.view, one.version)
    if isinstance(view, FeatureView):
        yield one
        return
    say(f"{one.name} = {one.feature.expression}  ({view.name} v{view.version}, computed when it is read)")
    say()
    for given in view.inputs:
        parts = [given] if isinstance(given, FeatureOf) else [given[name] for name in _names(given)]
        for part in parts:
            yield from _stored(project, part)


def _explain(store: Store, settings: Settings, entity: Entity, keys: Keys, one: FeatureOf) -> bool:
    view = store.project.view(one.view, one.version)
    assert not isinstance(view, DerivedView)
    if view.entity != entity:
        say(f"{one.name} is a feature of {view.entity.name}: featurestore explain {view.entity.name} ID {one.name}")
        say()
        return False
    now, zone = datetime.now(UTC), LandingZone.of(settings)
    [key] = [entity_id(values) for values in zip(*(keys[column] for column in entity.key_columns), strict=True)]
    told = story(store.database, zone, view, one, key, now)
    if told is None:
        say(f"{one.name}: no row that counts has arrived")
        return False
    value = _offline(store, keys, one, now)
    say(f"{text(value):<7} {told.expression:<32} {view.name} v{view.version}, code {view.digest[:7]}")
    for name, what in _lines(told, zone, now):
        _line(name, what)
    _line("run", run_of(settings, told.batch_id, told.applied_at))
    if one.feature.online:
        [row] = store.online(keys, [one])
        online = row[one.name]
        same = online.value == value
        _line("online", "same value" if same else f"{text(online.value)} ({online.status.lower()}): not the same")
    say()
    return True


def _lines(told: Story, zone: LandingZone, now: datetime) -> Iterator[tuple[str, str]]:
    counted = f", the newest of {told.rows} rows that count" if told.rows > 1 else ""
    yield "event_timestamp", f"{_time(told.event_timestamp)}  ({age(told.event_timestamp, now)} ago{counted})"
    yield "created_at", f"{_time(told.created_at)}  (known {_after(told)} later)"
    yield "source", f"{told.view.source.name}, {_position(told)}"
    yield "batch", f"{told.batch_id}  {_checked(told, zone)}"
    yield "logged", f"{_time(told.applied_at)}  commit {told.commit_seq}"


def _after(told: Story) -> str:
    after_s = told.known_after.total_seconds()
    return f"{after_s:.1f} s" if after_s < 60 else age(told.event_timestamp, told.created_at)


def _position(told: Story) -> str:
    if "/upload=" in told.batch_id:
        upload = told.batch_id.partition("/upload=")[2].partition("/")[0]
        return f"upload {upload[:12]}, row {told.sequence}"
    partition = told.batch_id.partition("/partition=")[2].partition("/")[0]
    return f"partition {partition}, offset {told.sequence}" if partition else f"row {told.sequence}"


def _checked(told: Story, zone: LandingZone) -> str:
    if told.batch is None:
        return "no longer kept"
    try:
        zone.read(told.batch)
    except CorruptFileError:
        return "DAMAGED: featurestore doctor"
    return "every byte checked"


def run_of(settings: Settings, batch_id: str, at: datetime) -> str:
    """The run that applied a batch at a time, with its address."""
    from featurestore_dagster import names  # here: Dagster takes seconds to import
    from featurestore_dagster.runs import run_that_applied
    from featurestore_dagster.services import open_instance

    try:
        instance = open_instance(settings)
    except SettingsError as error:
        return str(error)
    with instance:
        record = run_that_applied(instance, batch_id, at, names.Keys(settings.namespace))
    if record is None:
        return "no longer kept, or a run over whole hours"
    state = Home(settings.data_dir).state()
    url = f"  {state.dagster_url}/runs/{record.dagster_run.run_id}" if state else ""
    return f"{record.dagster_run.run_id[:8]}  {record.dagster_run.status.value.lower()}{url}"


def _offline(store: Store, keys: Keys, one: FeatureOf, now: datetime) -> object:
    """The value by the log: of a training set with one row."""
    spine = pa.table({**{name: list(values) for name, values in keys.items()}, "event_timestamp": [now]})
    return pa.table(store.training_set(spine, [one]))[one.name][0].as_py()


def _time(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S.%fZ")


def _line(name: str, what: str) -> None:
    say(f"        {name:<{WIDTH}} {what}")
