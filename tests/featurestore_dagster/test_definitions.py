"""The code location loads anywhere, quickly, with nothing to connect to; and works from Dagster's command line."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from threading import Event
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon import controller
from dagster._daemon import sensor as sensor_loop
from dagster._daemon.backfill import execute_backfill_iteration_loop
from dagster._daemon.controller import create_daemon_of_type
from dagster._daemon.sensor import execute_sensor_iteration_loop

from featurestore.settings import Settings
from featurestore_dagster.build import build_definitions
from featurestore_dagster.features.project import PROJECT
from featurestore_dagster.instance import BACKFILL_LOOP_S, SENSOR_LOOP_S, FeatureStoreInstance
from tests.services import ENV

ROOT = Path(__file__).parents[2]
DAGSTER = [sys.executable, "-m", "dagster"]
NOWHERE = {
    "FEATURESTORE_REDIS_URL": "redis://:canary-of-redis@127.0.0.1:1/0",
    "FEATURESTORE_KAFKA_BROKERS": "127.0.0.1:1",
    "FEATURESTORE_AZURE_CONNECTION_STRING": "AccountName=a;AccountKey=Y2FuYXJ5;BlobEndpoint=http://127.0.0.1:1/a;",
}


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    given = {name: value for name, value in ENV.items() if not name.startswith(("FEATURESTORE_", "DAGSTER_"))}
    home = tmp_path / "dagster"
    home.mkdir(exist_ok=True)
    shutil.copy(ROOT / "dagster.yaml", home)
    paths = os.pathsep.join([str(ROOT), str(tmp_path)])
    data = {"FEATURESTORE_DATA_DIR": str(tmp_path / "data"), "DAGSTER_HOME": str(home), "PYTHONPATH": paths}
    return {**given, **NOWHERE, **data, **more}


def run(*command: str, env: dict[str, str], cwd: Path = ROOT) -> str:
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_location_loads_with_everything_down_and_says_nothing(tmp_path: Path) -> None:
    code = "import featurestore_dagster.definitions as d; d.defs.get_repository_def().load_all_definitions()"
    assert run(sys.executable, "-W", "error", "-c", code, env=environment(tmp_path)) == ""
    assert not (tmp_path / "data").exists()


def test_loading_definitions_leaves_out_what_only_runs_and_ticks_need(tmp_path: Path) -> None:
    def heavy(then: str) -> str:
        (tmp_path / "here.py").write_text(
            f"""
import sys
import featurestore as fs
from featurestore.settings import Settings
from featurestore_dagster.build import build_definitions

USER = fs.Entity("user", key="user_id")
CLICKS = fs.KafkaSource("clicks", timestamp="at", schema={{"user_id": int, "a": float}})
FILES = fs.AssetSource("files", timestamp="at", schema={{"user_id": int, "b": float}}, path="files")
VIEWS = (
    fs.FeatureView("clicked", USER, CLICKS, [fs.Feature("a", float, online=True)], expect=[fs.Expectation("a > 0")]),
    fs.FeatureView("filed", USER, FILES, [fs.Feature("b", float)]),
)
HALF = fs.DerivedView("half", [VIEWS[0]["a"]], [fs.Feature("half_a", float, "a / 2")])
defs = build_definitions(fs.Project((*VIEWS, HALF), (fs.Model("m", [HALF["half_a"]]),)), Settings())
{then}
print(sorted({{"azure", "numpy", "pandas", "pyarrow", "redis", "featurestore.apply"}} & set(sys.modules)))
"""
        )
        return run(sys.executable, "here.py", env=environment(tmp_path), cwd=tmp_path).splitlines()[-1]

    assert heavy("") == "[]"
    assert "pyarrow" in heavy("import featurestore_dagster.steps.features")  # it can be seen


def test_dagster_validates_the_workspace(tmp_path: Path) -> None:
    said = run(*DAGSTER, "definitions", "validate", "-w", "workspace.yaml", env=environment(tmp_path))
    assert "All code locations passed validation" in said


def test_an_hour_is_materialized_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "here.py").write_text(
        """
from datetime import UTC, datetime
from pathlib import Path
import dagster as dg
from featurestore_dagster.assets.features import feature_assets
from featurestore_dagster.assets.raw import raw_assets, source_specs
from featurestore_dagster.testing import land, memory_resources
from tests.featurestore_dagster.platform import CLICKS, PROJECT

AT = datetime(2026, 11, 21, 10, 5, tzinfo=UTC)
RESOURCES = memory_resources(Path(__file__).parent / "embedded")
if not RESOURCES["landing"].batches():
    land(RESOURCES, CLICKS, [{"user_id": 7, "at": AT, "page": "home"}], created_at=AT)
defs = dg.Definitions(
    assets=[*source_specs(PROJECT), *raw_assets(PROJECT), *feature_assets(PROJECT)],
    resources=RESOURCES,
    executor=dg.in_process_executor,
)
"""
    )
    env, select = environment(tmp_path), ("--select", "raw/clicks+", "--partition", "2026-11-21-10:00")
    run(*DAGSTER, "asset", "materialize", "-m", "here", *select, env=env, cwd=tmp_path)
    query = "SELECT entity_id, page FROM log.last_click_v1"
    code = f"import duckdb; print(duckdb.connect('embedded/features.duckdb').sql('{query}').fetchall())"
    assert run(sys.executable, "-c", code, env=env, cwd=tmp_path).strip() == "[('7', 'home')]"


def test_the_instance_keeps_all_events_in_one_file_below_its_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(ROOT / "dagster.yaml", home)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.get() as instance:
        assert isinstance(instance, FeatureStoreInstance)

        @dg.asset
        def one() -> None: ...

        for _ in range(2):
            assert dg.materialize([one], instance=instance).success
        assert len(instance.get_runs()) == 2
    files = {path.relative_to(home).as_posix() for path in home.rglob("*.db")}
    assert files == {"state/runs.db", "state/event_log.db", "state/schedules.db"}


class Waited(Event):
    """How long it was waited for; nobody really waits."""

    def __init__(self) -> None:
        super().__init__()
        self.longest_s = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        self.longest_s = max(self.longest_s, timeout or 0.0)
        return True


@pytest.mark.parametrize(
    ("kind", "begin", "module", "name", "ours_s"),
    [
        ("SENSOR", execute_sensor_iteration_loop, sensor_loop, "MIN_INTERVAL_LOOP_TIME", SENSOR_LOOP_S),
        ("BACKFILL", execute_backfill_iteration_loop, controller, "DEFAULT_DAEMON_INTERVAL_SECONDS", BACKFILL_LOOP_S),
    ],
)
def test_the_daemon_looks_at_sensors_and_backfills_more_often_than_stock(
    kind: str, begin: Any, module: Any, name: str, ours_s: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the pause between two looks from inside of Dagster: the installed version has to go by it."""
    monkeypatch.setattr(module, name, getattr(module, name))  # and put it back
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    pauses: list[float] = []
    with dg.DagsterInstance.get() as instance, WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as workspace:
        for prepare in (lambda: None, lambda: create_daemon_of_type(kind, instance)):
            prepare()
            waited = Waited()
            loop = begin(workspace, logging.getLogger(__name__), waited)
            while not waited.longest_s:
                next(loop)
            pauses.append(waited.longest_s)
    stock_s, now_s = pauses
    assert now_s <= ours_s < stock_s


def test_the_limits_of_dagster_yaml_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as instance:
        limits = instance.get_concurrency_config()
        assert limits.run_queue_config is not None
        assert limits.run_queue_config.max_concurrent_runs == 3
        assert limits.pool_config.default_pool_limit == 2
        assert instance.run_monitoring_enabled
        assert not instance.telemetry_enabled


def test_what_is_built_for_any_project_is_what_this_location_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    from featurestore_dagster.definitions import defs

    built = build_definitions(PROJECT, Settings())
    ours, theirs = defs.get_repository_def(), built.get_repository_def()
    assert ours.asset_graph.get_all_asset_keys() == theirs.asset_graph.get_all_asset_keys()
    assert ours.asset_graph.asset_check_keys == theirs.asset_graph.asset_check_keys
    for names in ("sensor_defs", "schedule_defs", "job_names"):
        assert [getattr(one, "name", one) for one in getattr(ours, names)] == [
            getattr(one, "name", one) for one in getattr(theirs, names)
        ]
    assert ours.get_top_level_resources().keys() == theirs.get_top_level_resources().keys()


def test_secrets_are_no_configuration(tmp_path: Path) -> None:
    settings = Settings.from_env({**NOWHERE, "FEATURESTORE_DATA_DIR": str(tmp_path)})
    repository = build_definitions(PROJECT, settings).get_repository_def()
    shown = repr([(r.config_schema.as_field().default_value_as_json_str if r.config_schema.default_provided else "")
                  for r in repository.get_top_level_resources().values()])  # fmt: skip
    assert "canary" not in shown
    assert "Y2FuYXJ5" not in shown


@dg.asset
def mine() -> None: ...


def test_it_merges_into_a_location_of_ones_own() -> None:
    ours = build_definitions(PROJECT, Settings(), executor=None)
    theirs = dg.Definitions(assets=[mine], executor=dg.multiprocess_executor)
    merged = dg.Definitions.merge(ours, theirs)
    dg.Definitions.validate_loadable(merged)
    assert dg.AssetKey("mine") in merged.resolve_asset_graph().get_all_asset_keys()


def test_with_a_namespace_it_merges_beside_the_same_names() -> None:
    """Of another project, and of somebody else's: resources, jobs, sensors and schedules."""
    taken = build_definitions(PROJECT, Settings()).get_repository_def()
    theirs = dg.Definitions(
        assets=[mine],
        jobs=[dg.define_asset_job(name, selection=[mine]) for name in taken.job_names if name != "__ASSET_JOB"],
        resources=dict.fromkeys(taken.get_top_level_resources(), "somebody else's"),
    )
    named = [build_definitions(PROJECT, Settings(namespace=name)) for name in ("team-a", "b")]
    for location in (dg.Definitions.merge(theirs, named[0]), dg.Definitions.merge(*named)):
        dg.Definitions.validate_loadable(location)


def test_the_workspace_names_the_location() -> None:
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text())
    [entry] = workspace["load_from"]
    assert entry["python_module"] == {"module_name": "featurestore_dagster.definitions", "working_directory": "."}
