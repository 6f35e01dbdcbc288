"""The one handle to read features: training sets, online values, model vectors, SQL."""

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeVar

import pyarrow as pa

from featurestore.database.client import Database, QueueDatabase
from featurestore.definitions.model import Model
from featurestore.definitions.project import Project
from featurestore.definitions.query import Query
from featurestore.definitions.reference import FeatureOf
from featurestore.definitions.view import View
from featurestore.errors import DefinitionError
from featurestore.offline.snapshot import Progress
from featurestore.online.reads import OnlineReads, ReadPlanner
from featurestore.online.redis_store import RedisOnlineStore
from featurestore.online.store import OnlineStore
from featurestore.online.values import OnlineValue
from featurestore.settings import Settings
from featurestore.training.build import Changes, build, changes, quiet, reproduce
from featurestore.training.pit_plan import KnownAt, plan_reads
from featurestore.training.receipt import Receipt
from featurestore.training.spine import ArrowStream
from featurestore.training.training_set import TrainingSet
from featurestore.versions import Active, ActiveVersions, activate

Value = str | int | float | bool | None
Keys = Mapping[str, Sequence[Value]]  # key column (or request value) → one value per row
Features = Sequence[FeatureOf | View]
OnlineRow = Mapping[str, OnlineValue]
Row = TypeVar("Row")


class Store:
    """Reads, and the choice of active versions; methods do I/O and may raise StoreUnavailableError. Thread-safe."""

    def __init__(self, project: Project, database: Database, online: OnlineStore) -> None:
        self.project = project
        self.database, self.online_store = database, online
        self._reads = ReadPlanner(project)
        self._active = ActiveVersions(project, database, online)

    def find(self, text: str) -> FeatureOf | View:
        """A view or a feature by its name as text, in the version that is active (see `active`).

        Raises:
            UnknownFeatureError: there is neither.
        """
        return self.find_all([text])[0]

    def find_all(self, texts: Sequence[str]) -> list[FeatureOf | View]:
        """`find` of several, at one moment: never one of a view before and another after the switch of its versions."""
        active = dict(self.active())
        return [self.project.find(text, active) for text in texts]

    def active(self) -> Active:
        """(view, version) of each view that is declared in several versions; asked for at most once a second."""
        return self._active.now()

    def activate(self, view: str, version: int) -> None:
        """Choose what readers get that name a feature of this view as text, from a second later on; it stays.

        Raises:
            JobRefusedError: the log has no such version.
        """
        activate(f"{view}@v{version}", self.database, self.online_store)

    def online(self, keys: Keys, features: Features, *, now: datetime | None = None) -> list[OnlineRow]:
        """The features as of now, one mapping per row of `keys`, in order; of a view, its online features.

        Derived features are computed from what was read; `keys` holds the request values that they need as well.
        `now` is another time to take for the present: for tests, and to compare with a training set.

        Raises:
            DefinitionError: a feature is not online.
            TerminalError: a key column or request value is missing, or `keys` has columns of different lengths.
        """
        rows = self._reads.plan(features).read(self.online_store, keys, now or datetime.now(UTC))
        return list[OnlineRow](rows)

    async def online_async(self, keys: Keys, features: Features, *, now: datetime | None = None) -> list[OnlineRow]:
        """`online`, awaited: the requests of an event loop share one connection to Redis, and no thread waits."""
        plan = self._reads.plan(features)
        return list[OnlineRow](await plan.read_async(self.online_store, keys, now or datetime.now(UTC)))

    def reading(self, features: Features) -> OnlineReads:
        """What `online` does for these features: the key columns and request values it takes; no I/O.

        Raises:
            DefinitionError: a feature is not online.
        """
        return self._reads.plan(features)

    def training_set(
        self,
        spine: ArrowStream,
        features: Features,
        *,
        time: str = "event_timestamp",
        time_zone: str | None = None,
        known_at: datetime | Literal["row"] | None = None,
        delay: timedelta = timedelta(0),
        progress: Progress = quiet,
    ) -> TrainingSet:
        """The spine's rows, in its order, with each feature as of the row's time (the column `time`, inclusive).

        `known_at`: everything that has landed (None), what had landed by a time, or, "row", by each row's own time
        less `delay`. `time_zone` is that of times without one.

        Raises:
            DefinitionError: a feature is not declared, or two have the same name.
            SpineError: the spine cannot be joined; the message names column and row.
        """
        plan = plan_reads(self.project, features, KnownAt.of(known_at, delay))
        return build(self.database, plan, spine, time=time, time_zone=time_zone, progress=progress)

    def reproduce(self, receipt: Receipt, spine: ArrowStream, *, progress: Progress = quiet) -> TrainingSet:
        """The training set of a receipt once more, the same to the bit, whatever has landed or changed since.

        Raises:
            SpineError: it is not the spine of the receipt.
            TerminalError: the log no longer has what the training set was made of.
        """
        return reproduce(self.database, receipt, spine, progress=progress)

    def changes(self, receipt: Receipt, spine: ArrowStream, *, progress: Progress = quiet) -> Changes:
        """What late data changed: the training set of a receipt, and the same plan with everything known today.

        Raises as `reproduce` does.
        """
        return changes(self.database, receipt, spine, progress=progress)

    def vectors(self, model: Model, keys: Keys, *, now: datetime | None = None) -> list[list[Value]]:
        """One vector per row of `keys`, values in the model's index order; what has no value is None.

        Raises as `online` does; DefinitionError also if `model` is not a declared model but a name, say.
        """
        return _vectors(self.online(keys, _expected(model), now=now), model)

    async def vectors_async(self, model: Model, keys: Keys, *, now: datetime | None = None) -> list[list[Value]]:
        """`vectors`, awaited."""
        return _vectors(await self.online_async(keys, _expected(model), now=now), model)

    def query(self, sql: str | Query, params: Mapping[str, Value] | None = None, *, into: type[Row]) -> list[Row]:
        """Run read-only SQL, or a declared query, and build `into` from each row: a dataclass, the columns its fields.

        Raises:
            QueryError: the database refused or failed it; the message is the reason.
        """
        return self.database.query(sql, params, into=into)

    def query_arrow(self, sql: str | Query, params: Mapping[str, Value] | None = None) -> pa.Table:
        """The same as an Arrow table, which every data frame library takes; times are in UTC, without a zone.

        Raises as `query` does.
        """
        return self.database.query_arrow(sql, params)

    def close(self) -> None:
        self.online_store.close()
        self.database.close()


def _expected(model: object) -> Features:
    if not isinstance(model, Model):
        raise DefinitionError(f"{model!r} is not a model; give the Model that is declared, not its name")
    return model.expected_features


def _vectors(rows: Sequence[OnlineRow], model: Model) -> list[list[Value]]:
    return [[row[one.name].value for one in model.expected_features] for row in rows]


@contextmanager
def connect(project: Project, settings: Settings | None = None) -> Generator[Store]:
    """Open the store of the running platform, found through FEATURESTORE_*; closed on every path."""
    settings = settings or Settings.from_env(os.environ)  # noqa: TID251  # an entry point: of scripts and notebooks
    redis = settings.redis
    online = RedisOnlineStore(
        redis.url, replica_url=redis.replica_url, namespace=settings.namespace, timeout_s=redis.timeout_s
    )
    store = Store(project, QueueDatabase.of(settings), online)
    try:
        yield store
    finally:
        store.close()
