"""The feature server as a process, or as several."""

from prometheus_client import CollectorRegistry, ProcessCollector

from featurestore.definitions.project import load_project
from featurestore.process import logs
from featurestore.process.daemon import Daemon, Service, run_until_signalled
from featurestore.process.health import Health
from featurestore.process.metrics import serve
from featurestore.settings import Settings
from featurestore_serving.server import PROBE_S, FeatureServer
from featurestore_serving.workers import Workers


def main(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; requests under way are finished."""
    logs.configure(settings.log_level, settings.log_format)
    registry, health = CollectorRegistry(), Health()
    ProcessCollector(registry=registry)
    if settings.server.workers > 1:
        service: Service = Workers(settings, health=health, registry=registry)
    else:
        service = FeatureServer(settings, load_project(settings.project), health=health, registry=registry)
    with serve(settings.metrics_port, registry, health):
        return run_until_signalled(Daemon(service, health=health, idle_s=PROBE_S))
