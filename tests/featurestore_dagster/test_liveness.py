"""A run whose process is dead is seen, and fails."""

import os
import subprocess
import sys
from datetime import UTC, datetime

import dagster as dg
from dagster._core.events import EngineEventData
from dagster._core.test_utils import freeze_time

from featurestore_dagster.liveness import RunProcesses


def started_run(instance: dg.DagsterInstance, pid: int | None) -> str:
    """A run that says that it is this process."""

    @dg.job
    def idle() -> None: ...

    run = instance.create_run_for_job(idle)
    if pid is not None:
        instance.report_engine_event("Executing steps in process", run, EngineEventData.in_process(pid))
    instance.report_dagster_event(
        dg.DagsterEvent(event_type_value=dg.DagsterEventType.RUN_START.value, job_name="idle"), run.run_id
    )
    return run.run_id


def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(30)
    return child.pid


def test_a_run_whose_process_is_dead_is_failed() -> None:
    with dg.instance_for_test() as instance:
        dead, alive, unsaid = (started_run(instance, pid) for pid in (dead_pid(), os.getpid(), None))
        processes = RunProcesses()
        assert [run.run_id for run in processes.dead(instance)] == [dead]
        assert processes.fail_dead(instance) == [dead]
        runs = {run.run_id: run.status for run in instance.get_runs()}
        started = dg.DagsterRunStatus.STARTED
        assert runs == {dead: dg.DagsterRunStatus.FAILURE, alive: started, unsaid: started}
        assert processes.fail_dead(instance) == []


def test_a_process_that_got_the_id_of_a_dead_one_is_another() -> None:
    with dg.instance_for_test() as instance, freeze_time(datetime(2026, 1, 1, tzinfo=UTC)):  # long before this process
        run_id = started_run(instance, os.getpid())
        assert [run.run_id for run in RunProcesses().dead(instance)] == [run_id]
