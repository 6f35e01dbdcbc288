"""A database service on a thread or in a process of its own, over real queues."""

import os
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from prometheus_client import CollectorRegistry

from featurestore.database.client import QueueDatabase
from featurestore.database.jobs import SchemaJob
from featurestore.database.service import DatabaseService
from featurestore.landing.zone import LandingZone
from featurestore.process.daemon import Daemon
from featurestore.process.health import Health
from featurestore.settings import DatabaseSettings, RedisSettings, Settings
from featurestore_cli.database import raw_relations
from ingest.feature_writes import FeatureWrites
from tests.featurestore.database.examples import PROJECT, SCHEMA
from tests.services import ENV, eventually


@dataclass(frozen=True)
class Serving:
    """A running service, and what it says of itself."""

    settings: Settings
    health: Health
    registry: CollectorRegistry
    daemon: Daemon

    def counted(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


def settings_for(home: Path, redis_url: str, **database: object) -> Settings:
    own = replace(DatabaseSettings(), memory="500MB", **database)  # type: ignore[arg-type]
    return Settings(data_dir=home, redis=RedisSettings(url=redis_url), database=own)


@contextmanager
def on_a_thread(settings: Settings, schema: SchemaJob = SCHEMA) -> Generator[Serving]:
    """Run it until the end of the context; what ended it earlier is raised then."""
    health, registry = Health(), CollectorRegistry()
    zone = LandingZone.of(settings)
    service = DatabaseService(
        settings,
        schema=schema,
        queries={query.name: query.sql for query in PROJECT.queries},
        raw=raw_relations(settings, PROJECT, zone),
        door=FeatureWrites(PROJECT, zone),
        health=health,
        registry=registry,
    )
    daemon = Daemon(service, health=health)
    ended: list[BaseException] = []

    def run() -> None:
        try:
            daemon.run()
        except Exception as error:  # noqa: BLE001  # raised again below, where the test sees it
            ended.append(error)

    thread = threading.Thread(target=run, name="service")
    thread.start()
    try:
        eventually(lambda: health.state != "starting" or bool(ended))
        yield Serving(settings, health, registry, daemon)
    finally:
        daemon.request_stop()
        thread.join(timeout=60)
        assert not thread.is_alive()
    if ended:
        raise ended[0]


_MAIN = "import os, sys; from featurestore_cli.database import main; from featurestore.settings import Settings; "
_MAIN += "sys.exit(main(Settings.from_env(os.environ)))"


def process(settings: Settings) -> "subprocess.Popen[bytes]":
    """The service as `featurestore run database` starts it."""
    given = {
        "FEATURESTORE_DATA_DIR": str(settings.data_dir),
        "FEATURESTORE_REDIS_URL": settings.redis.url,
        "FEATURESTORE_PROJECT": "tests.featurestore.database.examples:PROJECT",
        "FEATURESTORE_DATABASE_MEMORY": settings.database.memory,
    }
    env = {name: value for name, value in ENV.items() if not name.startswith("FEATURESTORE_")}
    root = Path(__file__).parents[3]
    python_path = os.pathsep.join(filter(None, [str(root), env.get("PYTHONPATH")]))
    return subprocess.Popen([sys.executable, "-c", _MAIN], env={**env, **given, "PYTHONPATH": python_path}, cwd=root)


@contextmanager
def client(settings: Settings, **options: object) -> Generator[QueueDatabase]:
    options = {"jobs_dir": settings.jobs_dir, "sql_token": settings.database.sql_token, **options}
    database = QueueDatabase(settings.redis.queues, namespace=settings.namespace, **options)  # type: ignore[arg-type]
    try:
        yield database
    finally:
        database.close()
