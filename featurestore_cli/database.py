"""The process of the database service: the service, with the door for values that other services send."""

from functools import partial

from prometheus_client import CollectorRegistry

from featurestore.database.landed_files import LandedFiles
from featurestore.database.raw import RawRelations, RawSource
from featurestore.database.service import DatabaseService
from featurestore.database.tables import schema_job
from featurestore.definitions.project import Project, load_project
from featurestore.landing.disk import DiskStorage
from featurestore.landing.schema import landed_schema
from featurestore.landing.zone import LandingZone
from featurestore.process.daemon import Daemon, run_until_signalled
from featurestore.process.health import Health
from featurestore.process.memory import bound_memory, parse_bytes
from featurestore.process.metrics import serve
from featurestore.settings import Settings
from ingest.feature_writes import FeatureWrites

_ROOM_BYTES = 2 * 2**30  # of addresses, for threads, results on their way and the landing zone


def main(settings: Settings) -> int:
    """Run until signalled; returns the exit code."""
    # DuckDB bounds what it holds, but not a single huge value, nor what becomes of a result outside it.
    bound_memory(parse_bytes(settings.database.memory) + _ROOM_BYTES)
    health, registry = Health(), CollectorRegistry()
    project = load_project(settings.project)
    zone = LandingZone.of(settings)
    service = DatabaseService(
        settings,
        schema=schema_job(project),
        queries={query.name: query.sql for query in project.queries},
        raw=raw_relations(settings, project, zone),
        door=FeatureWrites(project, zone),
        health=health,
        registry=registry,
    )
    with serve(settings.metrics_port, registry, health):
        return run_until_signalled(Daemon(service, health=health))


def raw_relations(settings: Settings, project: Project, zone: LandingZone) -> RawRelations:
    """The sources as SQL reads their landed rows: from the disk, or wherever else the landing zone is."""
    sources = [RawSource(one.name, landed_schema(one), partial(zone.files, one.name)) for one in project.sources]
    on_disk = isinstance(zone.storage, DiskStorage)
    landed = settings.landing_dir if on_disk else LandedFiles(zone.storage)
    return RawRelations(sources, directory=settings.raw_dir, landed=landed)
