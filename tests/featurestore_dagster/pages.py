"""What Dagster's pages ask, answered in this process."""

import warnings
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import dagster as dg
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster_graphql.test.utils import execute_dagster_graphql

Ask = Callable[[str], Any]


@contextmanager
def pages(instance: dg.DagsterInstance, module: str) -> Generator[Ask]:
    """GraphQL over the code location that `module` defines; of an answer, the one value that was asked for."""
    target = LoadableTargetOrigin(module_name=module, attribute="defs")
    origin = InProcessCodeLocationOrigin(target, location_name=module)
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", DeprecationWarning)  # Dagster's, of its own
        process = stack.enter_context(WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(origin)))

        def ask(query: str) -> Any:
            answer = execute_dagster_graphql(process.create_request_context(), query)
            assert not answer.errors, answer.errors
            [value] = answer.data.values()
            return value

        yield ask
