"""Lands two batches below DIRECTORY/n, killed at its n-th system call that matters, for every n until it is not.

python -m tests.faults.publisher DIRECTORY
"""

import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa

from featurestore.landing.batch import Batch
from featurestore.landing.dead_letters import DeadLetter
from featurestore.landing.publish import Published
from featurestore.landing.schema import landed_schema
from featurestore.landing.zone import LandingZone, kafka_chain
from featurestore_dagster.features.user import USER_EVENTS

CHAIN = kafka_chain("user_events", "cluster", "topic", 0)
END, DEAD_EVERY = 20, 5
NOW = datetime(2026, 5, 4, 10, tzinfo=UTC)


class FencedError(Exception):
    """Another writer was first."""


def land(zone: LandingZone, start: int, end: int, previous: Batch | None) -> Batch:
    """The numbers from start to end; every fifth is a dead letter."""
    good = [n for n in range(start, end) if n % DEAD_EVERY]
    rows = [{"sequence": n, "event_timestamp": n, "user_id": n, "action": "x", "amount": None} for n in good]
    result = zone.publish(
        CHAIN,
        pa.Table.from_pylist(rows, schema=landed_schema(USER_EVENTS)),
        source="user_events",
        start=start,
        end=end,
        schema_version="",
        previous=previous,
        dead=[DeadLetter(n, "bad", b"{") for n in range(start, end) if n % DEAD_EVERY == 0],
        now=lambda: NOW,
    )
    if not isinstance(result, Published):
        raise FencedError
    return result.batch


def die_at(step: int) -> None:
    """Before the n-th of these calls, the process is gone."""
    calls = count(1)

    def mortal(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    for name in ("mkdir", "pwrite", "fsync", "link", "unlink"):
        setattr(os, name, mortal(getattr(os, name)))


def main(directory: Path) -> None:
    for step in count(1):
        child = os.fork()  # nothing has started a thread yet
        if child == 0:
            die_at(step)
            zone = LandingZone(directory / str(step))
            land(zone, 10, END, land(zone, 0, 10, None))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            sys.exit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
