"""The launcher under whatever happens to processes: every run ends as it must, and nothing is left behind."""

import os
import random
import signal
import time

import psutil
import pytest

from featurestore_dagster.launcher.worker import WORKER_TAG, Worker
from tests.featurestore_dagster.launcher.running import Location, Status, until
from tests.services import ENV


def test_runs_end_as_they_must_once(location: Location) -> None:
    churn(location, 0.0, random.Random(1))


@pytest.mark.soak
def test_runs_end_as_they_must_for_hours(location: Location) -> None:
    churn(location, float(ENV.get("SOAK_S", "60")), random.Random(2))


def churn(location: Location, seconds: float, chance: random.Random) -> None:
    """Runs that succeed, fail, are cancelled and are killed; zygotes that are killed, and code that changes."""
    acts = [succeed, succeed, succeed, fail, cancel, kill, kill_zygote, change]
    succeed(location, chance)
    open_files = psutil.Process().num_fds()
    deadline, number = time.monotonic() + seconds, 0
    while time.monotonic() < deadline or number < len(acts):
        (acts[number] if number < len(acts) else chance.choice(acts))(location, chance)
        number += 1
    assert psutil.Process().num_fds() <= open_files
    assert len(zygotes()) == 1
    location.launcher.dispose()
    until(lambda: not zygotes(), "the zygote ends")


def succeed(location: Location, chance: random.Random) -> None:
    for run_id in [location.launch("says") for _ in range(chance.randint(1, 3))]:
        location.said(run_id)


def fail(location: Location, _: random.Random) -> None:
    assert location.ended(location.launch("fails")) is Status.FAILURE


def cancel(location: Location, _: random.Random) -> None:
    run_id, worker = location.waiting()
    assert location.launcher.terminate(run_id)
    assert location.ended(run_id) is Status.CANCELED
    until(lambda: not worker.is_alive, "its process ends")


def kill(location: Location, _: random.Random) -> None:
    run_id, worker = location.waiting()
    os.kill(worker.pid, signal.SIGKILL)
    until(lambda: not worker.is_alive, "it dies")
    health = location.launcher.check_run_worker_health(location.run(run_id))
    location.instance.report_run_failed(location.run(run_id), health.msg)  # as run monitoring does both
    location.instance.event_log_storage.free_concurrency_slots_for_run(run_id)


def kill_zygote(location: Location, chance: random.Random) -> None:
    run_id = location.launch("says")
    until(lambda: WORKER_TAG in location.run(run_id).tags, "the run has a process")
    worker = Worker.of(location.run(run_id).tags[WORKER_TAG])
    for zygote in zygotes():
        zygote.kill()
    assert location.said(run_id)["pid"] == worker.pid
    succeed(location, chance)


def change(location: Location, chance: random.Random) -> None:
    word = f"word {chance.random()}"
    location.say(word)
    assert location.said(location.launch("says"))["word"] == word


def zygotes() -> list[psutil.Process]:
    """The live children of this process that are zygotes; not their runs."""
    children = psutil.Process().children()
    return [child for child in children if child.status() != psutil.STATUS_ZOMBIE and is_zygote(child)]


def is_zygote(process: psutil.Process) -> bool:
    try:
        return "featurestore_dagster.launcher.zygote" in process.cmdline()
    except psutil.NoSuchProcess:
        return False
