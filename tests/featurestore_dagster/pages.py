"""What Dagster's pages ask, answered in this process."""

import warnings
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import dagster as dg
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster_graphql.test.utils import execute_dagster_graphql


class Pages:
    """GraphQL over a code location; of an answer, the one value that was asked for."""

    def __init__(self, process: WorkspaceProcessContext) -> None:
        self.process = process

    def __call__(self, query: str) -> Any:
        answer = execute_dagster_graphql(self.process.create_request_context(), query)
        assert not answer.errors, answer.errors
        [value] = answer.data.values()
        return value


@contextmanager
def pages(instance: dg.DagsterInstance, module: str) -> Generator[Pages]:
    """What a webserver shows of the code location that `module` defines."""
    target = LoadableTargetOrigin(module_name=module, attribute="defs")
    origin = InProcessCodeLocationOrigin(target, location_name=module)
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", DeprecationWarning)  # Dagster's, of its own
        yield Pages(stack.enter_context(WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(origin))))
