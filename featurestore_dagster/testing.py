"""The platform's resources without a platform: for pytest, notebooks and `dagster asset materialize`.

resources = memory_resources()
batch = land(resources, PROFILES, [{"user_id": 1, "as_of": NOW, "income": 200.0, "debt": 50.0, "age_years": 30}])
dg.materialize(assets, partition_key=key_of(batch.hour), resources=resources)
with resources["duckdb"].get_connection() as connection:
    connection.sql("SELECT * FROM features")
"""

import atexit
import shutil
import tempfile
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TypedDict

import dagster as dg
import pyarrow as pa
from dagster_duckdb import DuckDBResource

from featurestore.database.embedded import EmbeddedDatabase
from featurestore.definitions.source import Source
from featurestore.landing.batch import Batch
from featurestore.landing.erasures import Erasures
from featurestore.landing.publish import Published
from featurestore.landing.schema import landed_schema
from featurestore.landing.zone import LandingZone, kafka_chain
from featurestore.models.memory import MemoryBlobs, MemoryModelStore
from featurestore.offline.lake import Lake
from featurestore.online.memory import MemoryOnlineStore
from featurestore.training.files import TrainingSetFiles
from featurestore_dagster.backlog import Backlog
from featurestore_dagster.resources import BatchSelection
from featurestore_dagster.services import Connect, Services


class LandingResource(TypedDict):
    """Where rows land."""

    landing: LandingZone


class MemoryResources(LandingResource):
    """By the names that assets ask for."""

    batches: BatchSelection
    database: dg.ResourceDefinition
    lake: Lake
    online: MemoryOnlineStore
    blobs: MemoryBlobs
    models: MemoryModelStore
    training_sets: TrainingSetFiles
    duckdb: DuckDBResource


def memory_resources(directory: Path | None = None) -> MemoryResources:
    """The product's own landing zone and log in `directory` (by default one that goes with the process); the online
    store and the models in memory. The log is closed after each run; between runs `duckdb` opens the same file."""
    root = directory or _temporary()
    root.mkdir(parents=True, exist_ok=True)
    duckdb = DuckDBResource(database=str(root / "features.duckdb"))

    @dg.resource
    def database() -> Generator[EmbeddedDatabase]:
        with _shared(duckdb.database).opened(duckdb) as opened:
            yield opened

    return {
        "batches": BatchSelection(),
        "landing": LandingZone(root / "landing", Erasures(root / "erasures")),
        "database": database,
        "lake": Lake(_lake_of(duckdb.database)),
        "online": MemoryOnlineStore(),
        "blobs": MemoryBlobs(),
        "models": MemoryModelStore(),
        "training_sets": TrainingSetFiles(root / "training_sets"),
        "duckdb": duckdb,
    }


def memory_services(resources: MemoryResources) -> Connect:
    """The same, as sensors take it."""
    backlog = Backlog()

    @contextmanager
    def opened() -> Generator[Services]:
        duckdb = resources["duckdb"]
        with _shared(duckdb.database).opened(duckdb) as database:
            yield Services(landing=resources["landing"], database=database, online=resources["online"], backlog=backlog)

    return opened


def land(
    resources: LandingResource,
    source: Source,
    records: Sequence[Mapping[str, object]],
    *,
    created_at: datetime | None = None,
) -> Batch:
    """Land records, as an ingest daemon would, without its checks; times are aware datetimes."""
    zone = resources["landing"]
    chain = kafka_chain(source.name, "memory", "memory", 0)
    previous = zone.tail(chain)
    start = previous.end if previous else 0
    rows = [
        {**record, "sequence": start + number, **{landed: record.get(name) for name, landed in source.times.items()}}
        for number, record in enumerate(records)
    ]
    published = zone.publish(
        chain,
        pa.Table.from_pylist([_utc(row) for row in rows], schema=landed_schema(source)),
        source=source.name,
        start=start,
        end=start + len(rows),
        schema_version=source.schema_version,
        previous=previous,
        now=lambda: created_at or datetime.now(UTC),
    )
    if not isinstance(published, Published):
        raise TypeError(f"another process lands in {zone.storage.address}")
    return published.batch


class _SharedDatabase:
    """A DuckDB file is opened once per process: runs, ticks and checks at the same time share it, the last closes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._connected = ExitStack()
        self._database: EmbeddedDatabase | None = None

    @contextmanager
    def opened(self, resource: DuckDBResource) -> Generator[EmbeddedDatabase]:
        with self._lock:
            database = self._database = self._database or self._open(resource)
            self._users += 1
        try:
            yield database
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._connected.close()
                    self._database = None

    def _open(self, resource: DuckDBResource) -> EmbeddedDatabase:
        connection = self._connected.enter_context(resource.get_connection())
        database = EmbeddedDatabase(connection, lake_dir=_lake_of(resource.database))
        self._connected.callback(database.close)
        return database


def _lake_of(path: str) -> Path:
    return Path(path).parent / "lake"


@cache
def _shared(_path: str) -> _SharedDatabase:
    return _SharedDatabase()


def _utc(row: Mapping[str, object]) -> dict[str, object]:
    """Aware times as the landing zone stores them: UTC, without a zone."""
    return {
        name: value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) else value
        for name, value in row.items()
    }


def _temporary() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="featurestore-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory
