"""Runs that are forks: they do what a run does, end when told to, and never run old code."""

import os
import signal
import subprocess
import sys

import dagster as dg
import psutil
import pytest
from dagster._core.launcher.base import LaunchRunContext, WorkerStatus
from dagster._core.origin import JobPythonOrigin

from featurestore.errors import SettingsError
from featurestore_dagster.launcher.worker import WORKER_TAG, Worker
from tests.featurestore_dagster.launcher.running import WITHIN_S, Location, Status, until

pytestmark = pytest.mark.slow


def test_runs_are_forks_of_one_process_that_has_loaded_the_code(location: Location) -> None:
    first, second = (location.said(location.launch("says")) for _ in range(2))
    assert first["pid"] != second["pid"]
    assert first["parent"] == second["parent"] != os.getpid()
    assert first["ready"], "a run would import what its process should have brought along"
    assert location.ended(location.launch("fails")) is Status.FAILURE


def test_a_runs_record_is_complete(location: Location) -> None:
    run_id = location.launch("says")
    pid = location.said(run_id)["pid"]
    kinds = [entry.dagster_event_type for entry in location.instance.all_logs(run_id) if entry.dagster_event]
    for kind in ("RUN_START", "STEP_START", "STEP_SUCCESS", "LOGS_CAPTURED", "RUN_SUCCESS"):
        assert dg.DagsterEventType[kind] in kinds
    messages = [entry.message for entry in location.instance.all_logs(run_id)]
    until(lambda: not psutil.pid_exists(int(str(pid))), "the process ends and leaves nothing behind")
    assert any(f"pid: {pid}" in message for message in messages)
    [captured] = [
        entry.dagster_event.logs_captured_data
        for entry in location.instance.all_logs(run_id, of_type=dg.DagsterEventType.LOGS_CAPTURED)
        if entry.dagster_event
    ]
    output = location.instance.compute_log_manager.get_log_data([run_id, "compute_logs", captured.file_key])
    assert output.stdout is not None
    assert b"out loud" in output.stdout


def test_changed_code_is_what_the_next_run_runs(location: Location) -> None:
    location.say("first")
    assert location.said(location.launch("says"))["word"] == "first"
    location.say("second, and longer")
    assert location.said(location.launch("says"))["word"] == "second, and longer"


def test_a_file_that_the_code_reads_counts_as_code(location: Location) -> None:
    (location.directory / "words.txt").write_text("first")
    words = "from pathlib import Path\nWORD = Path(__file__).with_name('words.txt').read_text()\n"
    (location.directory / "words.py").write_text(words)
    assert location.said(location.launch("says"))["word"] == "first"
    (location.directory / "words.txt").write_text("second")
    assert location.said(location.launch("says"))["word"] == "second"


def test_a_run_is_cancelled_from_another_process(location: Location) -> None:
    run_id, worker = location.waiting()
    with dg.DagsterInstance.from_ref(location.instance.get_ref()) as webserver:
        assert webserver.run_launcher.terminate(run_id)
    assert location.ended(run_id) is Status.CANCELED
    until(lambda: not worker.is_alive, "its process ends")
    assert not location.launcher.terminate(run_id)


def test_a_killed_run_is_seen_to_be_dead(location: Location) -> None:
    run_id, worker = location.waiting()
    assert location.launcher.check_run_worker_health(location.run(run_id)).status is WorkerStatus.RUNNING
    os.kill(worker.pid, signal.SIGKILL)
    until(lambda: not worker.is_alive, "it dies")
    found = location.launcher.check_run_worker_health(location.run(run_id))
    assert found.status is WorkerStatus.FAILED
    assert str(worker.pid) in (found.msg or "")


def test_a_run_that_names_no_process_is_taken_to_be_well(location: Location) -> None:
    run = location.instance.create_run_for_job(location.repository.get_job("says"))
    assert location.launcher.supports_check_run_worker_health
    assert location.launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING


def test_a_killed_zygote_takes_no_run_with_it_and_is_replaced(location: Location) -> None:
    run_id, worker = location.waiting()
    zygote = psutil.Process(worker.pid).ppid()
    os.kill(zygote, signal.SIGKILL)
    until(lambda: psutil.Process(zygote).status() == psutil.STATUS_ZOMBIE, "the zygote dies")
    assert location.said(location.launch("says"))["parent"] != zygote
    location.go_on(run_id)
    assert location.ended(run_id) is Status.SUCCESS


def test_the_zygote_ends_with_the_launcher_and_the_run_goes_on(location: Location) -> None:
    run_id, worker = location.waiting()
    zygote = psutil.Process(worker.pid).parent()
    assert zygote is not None
    location.launcher.dispose()
    assert not zygote.is_running()
    assert worker.is_alive
    location.go_on(run_id)
    assert location.ended(run_id) is Status.SUCCESS


def test_a_run_that_was_cancelled_before_it_began_does_not_begin(location: Location) -> None:
    run_id = location.instance.create_run_for_job(
        location.repository.get_job("says"), job_code_origin=JobPythonOrigin("says", location.origin)
    ).run_id
    assert not location.launcher.terminate(run_id)  # there is no process yet
    location.launcher.launch_run(LaunchRunContext(location.run(run_id), None))
    assert location.ended(run_id) is Status.CANCELED
    assert not (location.directory / f"{run_id}.json").exists()


def test_a_process_with_the_id_of_a_dead_one_is_another() -> None:
    this = Worker.this()
    assert Worker.of(this.tag) == this
    assert this.is_alive
    earlier = Worker(this.pid, this.started - 1, this.namespace)
    assert not earlier.is_alive
    assert not earlier.interrupt()
    elsewhere = Worker(1, 1, "pid:[1]")
    assert elsewhere.is_alive  # as far as can be told from here
    assert not elsewhere.interrupt()
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(WITHIN_S)
    assert not Worker(child.pid, this.started, this.namespace).is_alive


THREAD = "import threading\nthreading.Thread(target=threading.Event().wait, name='keen', daemon=True).start()"
CRASH = "import os, sys\nif 'featurestore_dagster.launcher.loaded' in sys.modules:\n    os._exit(3)"


@pytest.mark.parametrize(("code", "why"), [(THREAD, "1 threads (keen)"), (CRASH, "exit status 3")])
def test_what_cannot_be_forked_is_started_the_stock_way_and_says_why(
    own_location: Location, code: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    own_location.file.write_text(f"{own_location.file.read_text()}\n{code}\n")
    with own_location.workspace() as workspace:
        run_id = own_location.launch("says", workspace)
        assert own_location.said(run_id)
    assert WORKER_TAG not in own_location.run(run_id).tags
    [told] = [entry.message for entry in own_location.instance.all_logs(run_id) if "new process" in entry.message]
    assert why in told
    assert why in caplog.text


def test_one_setting_switches_it_off(own_location: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATURESTORE_DAGSTER_LAUNCHER", "stock")
    with own_location.workspace() as workspace:
        run_id = own_location.launch("says", workspace)
        assert own_location.said(run_id)
    assert WORKER_TAG not in own_location.run(run_id).tags
    assert not [e for e in own_location.instance.all_logs(run_id) if "new process" in e.message]


def test_a_wrong_setting_is_refused(own_location: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATURESTORE_DAGSTER_LAUNCHER", "wram")
    with pytest.raises(SettingsError, match="'wram' is neither warm nor stock"):
        assert own_location.launcher
