"""The one handle to read features: online values, model vectors, SQL."""

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypeVar

from featurestore.database.client import Database, QueueDatabase
from featurestore.definitions.feature import FeatureOf
from featurestore.definitions.model import Model
from featurestore.definitions.project import Project
from featurestore.definitions.view import DerivedView, FeatureView, View
from featurestore.entity_id import KeyValue, entity_id
from featurestore.errors import DefinitionError, TerminalError
from featurestore.online.redis_store import RedisOnlineStore
from featurestore.online.store import OnlineStore
from featurestore.online.values import OnlineValue
from featurestore.settings import Settings

Value = str | int | float | bool | None
Keys = Mapping[str, Sequence[KeyValue]]  # key column → one value per row
Features = Sequence[FeatureOf | View]
OnlineRow = Mapping[str, OnlineValue]
Row = TypeVar("Row")


class Store:
    """Reads only; every method does I/O and may raise StoreUnavailableError (transient). Thread-safe."""

    def __init__(self, project: Project, database: Database, online: OnlineStore) -> None:
        self.project = project
        self.database, self._online = database, online

    def online(self, keys: Keys, features: Features) -> list[OnlineRow]:
        """The features as of now, one mapping per row of `keys`, in order; of a view, its online features.

        Raises:
            DefinitionError: a feature is not online, or is not read online.
            TerminalError: a key column is missing or `keys` has columns of different lengths.
        """
        wanted = [one for feature in features for one in self._online_features(feature)]
        rows: list[dict[str, OnlineValue]] = [{} for _ in range(_length(keys))]
        by_entity: dict[str, list[FeatureOf]] = {}
        for one in wanted:
            by_entity.setdefault(self._view_of(one).entity.name, []).append(one)
        now = datetime.now(UTC)
        for name, ones in by_entity.items():
            values = self._online.read(name, self._entity_ids(name, keys), ones, now)
            for row, found in zip(rows, values, strict=True):
                row.update(found)
        return list(rows)

    def vectors(self, model: Model, keys: Keys) -> list[list[Value]]:
        """One vector per row of `keys`, values in the model's index order; what is not present is None."""
        rows = self.online(keys, model.expected_features)
        return [[row[one.name].value for one in model.expected_features] for row in rows]

    def query(self, sql: str, params: Mapping[str, Value] | None = None, *, into: type[Row]) -> list[Row]:
        """Run read-only SQL and build `into`, a dataclass with fields named like the columns, from each row.

        Raises:
            QueryError: the database refused or failed it; the message is the reason.
        """
        return self.database.query(sql, params, into=into)

    def close(self) -> None:
        self._online.close()
        self.database.close()

    def _online_features(self, feature: FeatureOf | View) -> list[FeatureOf]:
        if isinstance(feature, FeatureView):
            return [feature[one.name] for one in feature.online_features]
        if isinstance(feature, DerivedView):
            raise DefinitionError(f"view {feature.name!r} is derived; derived views are not read online yet")
        view = self._view_of(feature)
        if feature.feature not in view.online_features:
            kind = "a window" if feature.feature not in view.row_features else "not online"
            advice = "windows are not read online yet" if kind == "a window" else "set online=True in its view"
            raise DefinitionError(f"feature {feature.name!r} of view {view.name!r} is {kind}; {advice}")
        return [feature]

    def _view_of(self, feature: FeatureOf) -> FeatureView:
        view = self.project.view(feature.view, feature.version)
        if isinstance(view, DerivedView):
            raise DefinitionError(f"feature {feature.name!r} is derived; derived views are not read online yet")
        return view

    def _entity_ids(self, entity: str, keys: Keys) -> list[str]:
        columns = self.project.entity(entity).key_columns
        missing = [column for column in columns if column not in keys]
        if missing:
            raise TerminalError(f"entity {entity!r} is identified by {', '.join(columns)}; {missing[0]!r} is not given")
        return [entity_id(values) for values in zip(*(keys[column] for column in columns), strict=True)]


@contextmanager
def connect(project: Project, settings: Settings | None = None) -> Generator[Store]:
    """Open the store of the running platform, found through FEATURESTORE_*; closed on every path."""
    settings = settings or Settings.from_env(os.environ)  # noqa: TID251  # an entry point: of scripts and notebooks
    store = Store(
        project,
        QueueDatabase(settings.redis.queues, namespace=settings.namespace, timeout_s=settings.database.read_timeout_s),
        RedisOnlineStore(settings.redis.url, namespace=settings.namespace, timeout_s=settings.redis.timeout_s),
    )
    try:
        yield store
    finally:
        store.close()


def _length(keys: Keys) -> int:
    lengths = {len(values) for values in keys.values()}
    if len(lengths) != 1:
        raise TerminalError(f"keys have columns of different lengths: { {name: len(v) for name, v in keys.items()} }")
    return lengths.pop()
