"""The database service, killed at each step of a group of jobs: before its n-th call of DuckDB or Redis.

python -m tests.featurestore.database.dying REDIS_URL DIRECTORY

The data of step n lie in DIRECTORY/<n>, its keys in the namespace `n<n>`; the last one is not killed.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, cast

import duckdb
import redis
from prometheus_client import CollectorRegistry

from featurestore.database.jobs import AppendJob
from featurestore.database.queues import Queues
from featurestore.database.service import DatabaseService
from featurestore.database.wire import REPLY, encode
from featurestore.landing.zone import LandingZone
from featurestore.process.health import Health
from featurestore.settings import Settings
from featurestore_cli.database import raw_relations
from ingest.feature_writes import FeatureWrites
from tests.featurestore.database.examples import ACTIVITY, PROJECT, SCHEMA, held, job, line, quarantine, row, table
from tests.featurestore.database.serving import settings_for

FIRST = job(("known", 3), job_id="first")
SECOND = job(("known", 3), ("a", 5), job_id="second")
THIRD = AppendJob(
    "third",
    ACTIVITY.target,
    (line("b", 2, quarantined=1), line("c", 0, filtered=4)),
    table(row("b", 0), row("b", 1)),
    quarantine(held()),
)
GROUP = (SECOND, THIRD, job(("a", 5), ("d", 1), job_id="fourth"))
CALLS = (
    (duckdb.DuckDBPyConnection, ("execute", "from_arrow")),
    (duckdb.DuckDBPyRelation, ("insert_into",)),
    (duckdb.Appender, ("append_rows", "flush")),
    (redis.Connection, ("send_packed_command",)),
)


def settings_of(redis_url: str, home: Path, step: int) -> Settings:
    made = settings_for(home / str(step), redis_url)
    return Settings(data_dir=made.data_dir, redis=made.redis, database=made.database, namespace=f"n{step}")


def die_at(step: int) -> None:
    """Before the n-th of these calls, the process is gone."""
    calls = count(1)

    def mortal(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if threading.current_thread() is threading.main_thread() and next(calls) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    for kind, names in CALLS:
        for name in names:
            setattr(kind, name, mortal(getattr(kind, name)))


def send(settings: Settings, jobs: tuple[AppendJob, ...]) -> None:
    """So that they are taken together."""
    queues = Queues(settings.namespace)
    with redis.Redis.from_url(settings.redis.url, protocol=2) as client:
        pipe = client.pipeline()
        for one in jobs:
            fields = {**encode(one), REPLY: f"{queues.replies}{one.job_id}".encode()}
            pipe.xadd(queues.write, cast("dict[Any, Any]", fields))
        pipe.execute()


def serve(settings: Settings, step: int) -> None:
    zone = LandingZone.of(settings)
    service = DatabaseService(
        settings,
        schema=SCHEMA,
        raw=raw_relations(settings, PROJECT, zone),
        door=FeatureWrites(PROJECT, zone),
        health=Health(),
        registry=CollectorRegistry(),
    )
    service.start()
    send(settings, (FIRST,))
    while not service.step():
        pass
    send(settings, GROUP)
    die_at(step)
    service.step()


def main(redis_url: str, home: Path) -> None:
    for step in count(1):
        child = os.fork()  # nothing has started a thread yet
        if child == 0:
            code = 1
            try:
                serve(settings_of(redis_url, home, step), step)
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            sys.exit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
