"""A code location in a directory of its own, its runs started as the daemon starts them."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.code_pointer import FileCodePointer
from dagster._core.launcher.base import LaunchRunContext
from dagster._core.origin import DEFAULT_DAGSTER_ENTRY_POINT, JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.workspace.context import BaseWorkspaceRequestContext, WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget
from dagster._utils.hosted_user_process import recon_repository_from_origin

from featurestore_dagster.launcher.warm import WarmRunLauncher
from featurestore_dagster.launcher.worker import WORKER_TAG, Worker

TREE = Path(__file__).parents[3]
WITHIN_S = 60.0
Status = dg.DagsterRunStatus


class Location:
    """A code location in a directory of its own, and an instance as `featurestore up` makes it."""

    def __init__(self, directory: Path, instance: dg.DagsterInstance) -> None:
        self.directory, self.instance = directory, instance
        self.file = directory / "location.py"
        shutil.copyfile(Path(__file__).with_name("location.py"), self.file)
        self.say("first")
        self.origin = RepositoryPythonOrigin(
            sys.executable,
            FileCodePointer(str(self.file), "defs", str(directory)),
            entry_point=DEFAULT_DAGSTER_ENTRY_POINT,
        )
        self.repository = recon_repository_from_origin(self.origin).get_definition()

    @property
    def launcher(self) -> WarmRunLauncher:
        launcher = self.instance.run_launcher
        assert isinstance(launcher, WarmRunLauncher)
        return launcher

    def say(self, word: str) -> None:
        """Change the code."""
        (self.directory / "words.py").write_text(f"WORD = {word!r}\n")

    @contextmanager
    def workspace(self) -> Generator[BaseWorkspaceRequestContext]:
        """With a code server, which the stock launcher needs."""
        target = PythonFileTarget(str(self.file), None, str(self.directory), None)
        with WorkspaceProcessContext(self.instance, target) as process:
            yield process.create_request_context()

    def launch(self, job: str, workspace: BaseWorkspaceRequestContext | None = None) -> str:
        """Start a run as the daemon does; return its id."""
        origin = None
        if workspace is not None:
            [code] = workspace.code_locations
            [repository] = code.get_repositories().values()
            origin = repository.get_full_job(job).get_remote_origin()
        run = self.instance.create_run_for_job(
            self.repository.get_job(job),
            job_code_origin=JobPythonOrigin(job, self.origin),
            remote_job_origin=origin,
        )
        starting = dg.DagsterEvent(event_type_value=dg.DagsterEventType.PIPELINE_STARTING.value, job_name=job)
        self.instance.report_dagster_event(starting, run.run_id)
        self.launcher.launch_run(LaunchRunContext(self.run(run.run_id), workspace))
        return run.run_id

    def run(self, run_id: str) -> dg.DagsterRun:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def ended(self, run_id: str) -> dg.DagsterRunStatus:
        until(lambda: self.run(run_id).is_finished, f"{run_id} ends")
        return self.run(run_id).status

    def said(self, run_id: str) -> dict[str, object]:
        assert self.ended(run_id) is Status.SUCCESS
        return json.loads((self.directory / f"{run_id}.json").read_text())

    def waiting(self) -> tuple[str, Worker]:
        """A run that is at work until it is told to go on, and its process."""
        run_id = self.launch("waits")
        until((self.directory / f"{run_id}.waits").exists, "the run waits")
        return run_id, Worker.of(self.run(run_id).tags[WORKER_TAG])

    def go_on(self, run_id: str) -> None:
        (self.directory / f"{run_id}.go").touch()


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {WITHIN_S:g} s: {what}"
        time.sleep(0.02)  # noqa: TID251  # polls another process; the condition above decides
