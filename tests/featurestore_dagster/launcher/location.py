"""A code location for runs that are really started: each job says something about its process."""

import json
import os
import sys
import time
from pathlib import Path

import dagster as dg
from words import WORD  # a module beside this one

HERE = Path(__file__).parent
STEPS = {"featurestore_dagster.steps.features", "pyarrow"}  # what this code does not load


@dg.op
def say(context: dg.OpExecutionContext) -> None:
    """Write down who did this run, with which code."""
    os.write(1, b"out loud\n")
    said = {"pid": os.getpid(), "parent": os.getppid(), "word": WORD, "ready": sys.modules.keys() >= STEPS}
    (HERE / f"{context.run_id}.json").write_text(json.dumps(said))


@dg.op
def fail() -> None:
    raise ValueError("as it should")


@dg.op(pool="one")
def wait(context: dg.OpExecutionContext) -> None:
    (HERE / f"{context.run_id}.waits").touch()
    while not (HERE / f"{context.run_id}.go").exists():
        time.sleep(0.02)  # noqa: TID251  # a run that takes its time


@dg.job
def says() -> None:
    say()


@dg.job
def fails() -> None:
    fail()


@dg.job
def waits() -> None:
    wait()


defs = dg.Definitions(jobs=[says, fails, waits], executor=dg.in_process_executor)
