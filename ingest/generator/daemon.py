"""The generator: producers of user events and a task that uploads profiles, all at once."""

import logging
import threading
from collections.abc import Callable

from prometheus_client import CollectorRegistry, ProcessCollector

from featurestore.process.daemon import Daemon, run_until_signalled
from featurestore.process.health import Health
from featurestore.process.metrics import serve
from featurestore.settings import Settings
from ingest.generator.events import EventProducer
from ingest.generator.ledger import Ledger, Sent
from ingest.generator.metrics import GeneratorMetrics
from ingest.generator.uploads import ProfileUploader

log = logging.getLogger(__name__)

_STEP_S = 1.0
_DRAIN_S = 25.0


class GeneratorDaemon:
    """Runs the tasks and keeps their ledger; see `featurestore.process.daemon.Service`.

    Each task is a thread that waits for what it needs. With `max_events` and `max_files` the generator ends when all
    is sent and acknowledged: it calls `done`.
    """

    def __init__(self, settings: Settings, *, health: Health, registry: CollectorRegistry) -> None:
        self._settings, self._health = settings, health
        self._metrics = GeneratorMetrics(registry)
        self._ledger = Ledger(settings.data_dir)
        self._stopping = threading.Event()
        self._tasks: list[EventProducer | ProfileUploader] = []
        self.done: Callable[[], None] = lambda: None

    def start(self) -> None:
        generator = self._settings.generator
        producers = [
            EventProducer(number, self._settings, self._stopping, self._tell) for number in range(generator.producers)
        ]
        self._tasks = [*producers, ProfileUploader(self._settings, self._stopping, self._tell)]
        for task in self._tasks:
            task.start()

    def step(self) -> bool:
        running = [task for task in self._tasks if task.is_alive()]
        if notes := [task.note for task in running if task.note]:
            self._health.not_ready("; ".join(dict.fromkeys(notes)))
        else:
            self._health.ready(f"{len(running)} tasks")
        self._ledger.write()
        if not running:
            log.info("all is sent")
            self.done()
        self._stopping.wait(_STEP_S)
        return True

    def drain(self) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopping.set()
        for task in self._tasks:
            task.join(_DRAIN_S)
        self._ledger.write()

    def _tell(self, source: str, sent: Sent) -> None:
        self._ledger.add(source, sent)
        self._metrics.add(source, sent)


def main(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT, or until all that was asked for is sent."""
    registry, health = CollectorRegistry(), Health()
    ProcessCollector(registry=registry)
    service = GeneratorDaemon(settings, health=health, registry=registry)
    daemon = Daemon(service, health=health)
    service.done = daemon.request_stop
    with serve(settings.metrics_port, registry, health):
        return run_until_signalled(daemon)
