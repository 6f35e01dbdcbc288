"""`featurestore run exporter`: Dagster and the pipeline, for Prometheus.

Everything else has /metrics of its own. Runs are too short for that and Dagster has none, so this process looks every
few seconds at what they left. Scraping reads the last look: a slow database never blocks it.
"""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from time import monotonic, time

import dagster as dg
from prometheus_client import CollectorRegistry, Counter, Gauge
from sqlalchemy.exc import OperationalError

from featurestore.definitions.project import Project, load_project
from featurestore.errors import TransientError
from featurestore.process.daemon import Daemon, run_until_signalled
from featurestore.process.health import Health
from featurestore.process.metrics import serve
from featurestore.settings import Settings
from featurestore_dagster.build import build_definitions
from featurestore_dagster.exporter.collector import LookCollector
from featurestore_dagster.exporter.events import EventCounters
from featurestore_dagster.exporter.looks import PipelineLook, look_at_dagster, look_at_pipeline
from featurestore_dagster.names import Keys
from featurestore_dagster.services import Connect, connect, open_instance

LOOK_EVERY_S = 10.0


class Exporter:
    """See `featurestore.process.daemon.Service`. Ready while both looks succeed; what it knew stays exported."""

    def __init__(
        self,
        settings: Settings,
        project: Project,
        *,
        open_instance: Callable[[], dg.DagsterInstance],
        connect: Connect,
        health: Health,
        registry: CollectorRegistry,
    ) -> None:
        self._settings, self._project, self._health = settings, project, health
        self._open_instance, self._connect = open_instance, connect
        self._collector = LookCollector()
        registry.register(self._collector)
        self._keys = Keys(settings.namespace)
        self._events = EventCounters(project, self._keys, registry)
        probes = Counter(
            "fs_freshness_probes",
            "Looks at a source; good where nothing has waited longer than FEATURESTORE_DAGSTER_FRESH_WITHIN_S.",
            ["source", "outcome"],
            registry=registry,
        )
        self._probes = {
            (source.name, good): probes.labels(source.name, "good" if good else "late")
            for source in project.sources
            for good in (True, False)
        }
        self._free = Gauge("fs_data_free_bytes", "Free space where the data directory is.", registry=registry)
        self._size = Gauge("fs_data_size_bytes", "Size of the file system of the data directory.", registry=registry)
        self._looked = Gauge(
            "fs_exporter_look_timestamp_seconds", "The last look that saw everything.", registry=registry
        )
        self._took = Gauge("fs_exporter_look_seconds", "How long it took.", registry=registry)
        self._instance: dg.DagsterInstance | None = None

    def start(self) -> None:
        definitions = build_definitions(self._project, self._settings)
        graph = definitions.resolve_asset_graph()
        self._assets = sorted(graph.materializable_asset_keys)
        self._checks = sorted(graph.asset_check_keys, key=str)
        self._instance = self._open_instance()

    def step(self) -> bool:
        began = monotonic()
        assert self._instance is not None
        disk = shutil.disk_usage(self._settings.data_dir)
        self._free.set(disk.free)
        self._size.set(disk.total)
        try:
            self._collector.dagster = look_at_dagster(self._instance, self._assets, self._checks)
            self._events.count(self._instance)
        except OperationalError as error:  # SQLite's file is locked
            raise TransientError(f"Dagster's storage does not answer: {error.orig}") from error
        with self._connect() as services:
            self._collector.pipeline = look_at_pipeline(self._project, self._instance, services, self._keys)
        self._probe(self._collector.pipeline)
        self._looked.set(time())
        self._took.set(monotonic() - began)
        self._health.ready()
        return False

    def drain(self) -> None:
        """Nothing is held."""

    def stop(self) -> None:
        if self._instance is not None:
            self._instance.dispose()

    def _probe(self, look: PipelineLook) -> None:
        now = datetime.now(UTC)
        for source, backlog in look.backlog.items():
            waited_s = (now - backlog.oldest_at).total_seconds() if backlog.oldest_at else 0.0
            self._probes[source, waited_s <= self._settings.dagster.fresh_within_s].inc()


def main(settings: Settings) -> int:
    """Run until signalled; returns the exit code."""
    health, registry = Health(), CollectorRegistry()
    exporter = Exporter(
        settings,
        load_project(settings.project),
        open_instance=partial(open_instance, settings),
        connect=connect(settings),
        health=health,
        registry=registry,
    )
    with serve(settings.metrics_port, registry, health):
        return run_until_signalled(Daemon(exporter, health=health, idle_s=LOOK_EVERY_S))
