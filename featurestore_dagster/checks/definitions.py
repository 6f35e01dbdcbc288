"""Every check of a project, and all of them as something to run by hand; sensors/checks.py evaluates them by itself."""

from collections.abc import Iterator, Sequence

import dagster as dg

from featurestore.definitions.project import Project
from featurestore_dagster.checks.accounting import accounting
from featurestore_dagster.checks.completeness import completeness
from featurestore_dagster.checks.future_rows import future_rows
from featurestore_dagster.checks.parity import parity
from featurestore_dagster.checks.scope import Check, Scope
from featurestore_dagster.names import PLAIN, Keys
from featurestore_dagster.resources import Given


def checks_of(project: Project, keys: Keys = PLAIN) -> list[Check]:
    return [
        *accounting(project, keys),
        *completeness(project, keys),
        *future_rows(project, keys),
        *parity(project, keys),
    ]


def run_by_hand(checks: Sequence[Check], project: Project, keys: Keys = PLAIN) -> list[dg.AssetChecksDefinition]:
    """The checks as something to run: one op for all, because Dagster takes its time to load an op."""
    if not checks:
        return []
    by_key = {dg.AssetCheckKey(check.key, check.name): check for check in checks}

    @dg.multi_asset_check(
        name=keys.name("checks"),
        specs=[dg.AssetCheckSpec(check.name, asset=check.key, description=check.description) for check in checks],
        can_subset=True,
        required_resource_keys=keys.resources("landing", "database", "online"),
    )
    def run(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        from featurestore_dagster.backlog import Backlog

        given = Given(context, keys)
        scope = Scope.of(project, given.landing, given.database, given.online, Backlog())
        for key in context.selected_asset_check_keys:
            yield by_key[key].result(scope)

    return [run]
