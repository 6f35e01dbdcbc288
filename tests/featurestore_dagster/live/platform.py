"""Dagster as `featurestore up` starts it: webserver, daemon and code server, with Redis and the database service."""

import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import psutil

from featurestore.definitions.source import Source
from featurestore.landing.batch import Batch
from featurestore.landing.zone import LandingZone
from featurestore.settings import Settings
from featurestore_cli.stack.dagster import Dagster, plan_dagster
from featurestore_cli.stack.ports import Ports
from featurestore_cli.stack.processes import Child, start
from featurestore_cli.stack.service import Program
from featurestore_dagster.services import connect
from featurestore_dagster.testing import land
from tests.featurestore_dagster.live.location import CLICKS, PROJECT
from tests.services import ENV, eventually

TREE = Path(__file__).parents[3]
WITHIN_S = 90.0
ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
BACKFILL = "mutation($p: LaunchBackfillParams!){launchPartitionBackfill(backfillParams: $p){__typename ... on LaunchBackfillSuccess{backfillId} ... on PythonError{message}}}"  # noqa: E501
REEXECUTE = "mutation($id: String!){launchRunReexecution(reexecutionParams: {parentRunId: $id, strategy: ALL_STEPS}){__typename ... on LaunchRunSuccess{run{runId}} ... on PythonError{message}}}"  # noqa: E501
DOWNSTREAM = "query($key: AssetKeyInput!){assetNodeOrError(assetKey: $key){... on AssetNode{dependedByKeys{path}}}}"
TERMINATE = "mutation($id: String!){terminateRun(runId: $id){__typename ... on PythonError{message}}}"


class Live:
    """A running Dagster, asked as its pages ask it."""

    def __init__(self, project: Path, settings: Settings, env: Mapping[str, str], instance: dg.DagsterInstance) -> None:
        self.project, self.settings, self.env, self.instance = project, settings, env, instance
        self.dagster_url = ""
        self.children: dict[str, Child] = {}
        self.zone = LandingZone(settings.landing_dir)

    @property
    def processes(self) -> list[int]:
        return [child.pid for child in self.children.values()]

    def start(self, program: Program) -> Child:
        child = self.children[program.name] = start(program, self.project.parent / "logs", self.env)
        child.wait_ready()
        return child

    def program(self, name: str) -> psutil.Process:
        """What runs on the leash."""
        [process] = psutil.Process(self.children[name].pid).children()
        return process

    def land(self, *users: int, source: Source = CLICKS, at: datetime | None = None) -> Batch:
        """A batch with a row for each user."""
        now = at or datetime.now(UTC)
        text = next(name for name in source.schema if name != "user_id")
        rows = [{"user_id": user, "at": now, text: f"{user} at {now}"} for user in users]
        return land({"landing": self.zone}, source, rows, created_at=at)

    def hold(self) -> None:
        (self.project / "hold").touch()

    def go_on(self) -> None:
        (self.project / "hold").unlink(missing_ok=True)

    def applied(self) -> dict[str, int]:
        """Of each batch in the ledger, how many of its rows are in the log."""
        with connect(self.settings)() as services:
            rows = services.backlog.ledger(PROJECT, services.database).rows.values()
        return {row.batch_id: row.logged for row in rows}

    def log(self, view: str = "last_click") -> list[tuple[str, datetime, int]]:
        """The rows of the view's log."""
        sql = f"SELECT entity_id, created_at, commit_seq FROM log.{view}_v1 ORDER BY ALL"
        with connect(self.settings)() as services:
            return [tuple(row.values()) for row in services.database.query_arrow(sql).to_pylist()]

    def settle(self, *batches: Batch, within_s: float = WITHIN_S) -> None:
        """Until these are applied and no run is live."""
        names = {batch.batch_id for batch in batches}
        eventually(lambda: names <= set(self.applied()) and not self.live(), within_s)

    def live(self) -> list[dg.DagsterRun]:
        return [run for run in self.instance.get_runs(limit=50) if run.status not in ENDED]

    def run_of(self, batch: Batch) -> str:
        """The run that is at work on the batch."""

        def started() -> list[dg.DagsterRun]:
            runs = self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
            return [run for run in runs if batch.batch_id in json.dumps(run.run_config) and self.is_in_step(run)]

        eventually(lambda: bool(started()), WITHIN_S)
        return started()[0].run_id

    def is_in_step(self, run: dg.DagsterRun) -> bool:
        events = self.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_START)
        return any((event.step_key or "").startswith("apply_") for event in events)

    def ended(self, run_id: str) -> dg.DagsterRunStatus:
        eventually(lambda: self.run(run_id).is_finished, WITHIN_S)
        return self.run(run_id).status

    def run(self, run_id: str) -> dg.DagsterRun:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def claimed(self) -> int:
        """Places that are taken in the pool of transforms."""
        return self.instance.event_log_storage.get_concurrency_info("transform").active_slot_count

    def ask(self, query: str, **variables: object) -> Any:
        """GraphQL, as the pages send it."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.dagster_url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            answer = json.loads(reply.read())
        assert "errors" not in answer, answer
        [value] = answer["data"].values()
        return value

    def command(self, *words: str) -> "subprocess.Popen[bytes]":
        """`dagster WORDS`, beside the daemon."""
        program = str(Path(sys.executable).with_name("dagster"))
        with self.said(words[0]).open("ab") as log:
            return subprocess.Popen([program, *words], cwd=self.project, env=self.env, stdout=log, stderr=log)

    def said(self, command: str) -> Path:
        return self.project / f"{command}.log"


@contextmanager
def live_dagster(directory: Path, redis_url: str, **settings_of_dagster: object) -> Generator[Live]:
    """Everything started; what runs at the end is stopped."""
    project = directory / "project"
    project.mkdir()
    shutil.copyfile(Path(__file__).with_name("location.py"), project / "location.py")
    (project / "workspace.yaml").write_text("load_from: [{python_file: {relative_path: location.py}}]\n")
    data = directory / "data"
    given = {
        "FEATURESTORE_DATA_DIR": str(data),
        "FEATURESTORE_REDIS_URL": redis_url,
        "FEATURESTORE_PROJECT": "location:PROJECT",
        **{f"FEATURESTORE_DAGSTER_{name.upper()}": str(value) for name, value in settings_of_dagster.items()},
        "DAGSTER_HOME": str(data / "dagster"),
        "PYTHONPATH": str(TREE),
    }
    plain = {name: value for name, value in ENV.items() if not name.startswith(("FEATURESTORE_", "DAGSTER_"))}
    env = {**plain, **given}
    settings = Settings.from_env({name: value for name, value in given.items() if name.startswith("FEATURESTORE_")})
    ports = Ports()  # held until the end: another platform may start at the same time
    dagster = plan_dagster(settings.dagster_home, project, previous_port=ports.take(), ports=ports)
    dagster.prepare()
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance, ExitStack() as stack:
        live = Live(project, settings, env, instance)
        live.dagster_url = dagster.url
        stack.callback(live.go_on)
        stack.callback(lambda: [child.stop() for child in reversed(live.children.values())])
        for program in programs(dagster, project):
            live.start(program)
        yield live


def programs(dagster: Dagster, project: Path) -> list[Program]:
    command = (sys.executable, "-m", "featurestore_cli.main", "run", "database")
    database = Program(name="database", command=command, directory=project, answers=lambda: True)
    [code] = dagster.code_servers
    return [database, code.program(project), dagster.webserver(), dagster.daemon()]
