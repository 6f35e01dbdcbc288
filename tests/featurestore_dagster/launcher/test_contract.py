"""What the launcher takes from inside of Dagster is there, in the version that is installed."""

from importlib import import_module
from importlib.metadata import requires, version
from inspect import signature

import dagster as dg
from dagster._cli.api import _execute_run_command_body
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._utils.hosted_user_process import recon_repository_from_origin

from featurestore_dagster.launcher.warm import WarmRunLauncher
from featurestore_dagster.launcher.zygote import IMPORTED_BY_RUNS


def test_the_version_is_pinned_to_the_minor() -> None:
    assert "dagster~=1.13.0" in (requires("featurestore-dagster") or [])
    assert version("dagster").startswith("1.13.")


def test_the_private_functions_take_what_they_are_given() -> None:
    body = signature(_execute_run_command_body)
    assert list(body.parameters) == ["run_id", "instance", "write_stream_fn", "set_exit_code_on_failure"]
    assert list(signature(recon_repository_from_origin).parameters) == ["origin"]
    assert {"dagster_run", "workspace"} <= set(LaunchRunContext._fields)
    assert {"status", "msg"} <= set(CheckRunHealthResult._fields)
    assert {status.name for status in WorkerStatus} >= {"RUNNING", "FAILED"}


def test_what_is_overridden_is_there_to_override() -> None:
    for name in ("launch_run", "terminate", "check_run_worker_health", "dispose", "register_instance"):
        ours, theirs = getattr(WarmRunLauncher, name), getattr(dg.DefaultRunLauncher, name)
        assert ours is not theirs
        assert list(signature(ours).parameters) == list(signature(theirs).parameters), name
    assert not dg.DefaultRunLauncher().supports_check_run_worker_health


def test_what_runs_import_is_there_to_be_imported_before_they_fork() -> None:
    assert "featurestore_dagster.steps.features" in IMPORTED_BY_RUNS
    for module in IMPORTED_BY_RUNS:  # the zygote passes over what is missing
        import_module(module)
