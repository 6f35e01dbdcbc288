"""A program in its place: what it waits for, how it is asked, when it is stopped."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from featurestore_cli.stack.service import Program, get_http

# When the platform stops, from first to last: nothing that is still at work loses what it works with.
GENERATOR, INGEST, RUNS, CODE, DATABASE, SERVICES = range(6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A program in its place."""

    program: Program
    after: tuple[str, ...] = ()  # names of those that are ready, or done, before it starts
    started: bool = True  # by us; others are only looked at
    once: bool = False  # it does its work and ends
    may_end: bool = False  # exit status 0 is no failure: it has done what it was told to
    wave: int = SERVICES
    metrics_port: int = 0  # where its /health is
    note: str = ""
    when_ready: Callable[[], None] | None = None  # called each time it becomes ready

    @property
    def name(self) -> str:
        return self.program.name


def read_health(port: int) -> tuple[bool, str]:
    """Whether one of our own processes says that it is ready, and its note."""
    status, body = get_http(port, "/health")
    try:
        note = json.loads(body).get("note", "") if body else ""
    except ValueError:
        note = ""
    return status == 200, note
