"""The whole of `up`: plan, start, show, stop."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from featurestore.settings import Settings
from featurestore_cli.stack.plan import Plan, plan_platform
from featurestore_cli.stack.service import Say
from featurestore_cli.stack.state import Home, PlatformState, ProcessState, now
from featurestore_cli.stack.supervisor import Report, Supervisor


class Closing(Report, Protocol):
    """A report that has to be closed."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Running:
    """What a report may want to know of the platform: its settings are those that every other process gets."""

    settings: Settings
    dagster_url: str


def run_platform(
    home: Home,
    settings: Settings,
    environ: Mapping[str, str],
    *,
    generator: bool | None,
    say: Say,
    show: Callable[[Running], Closing],
) -> None:
    """Run the platform until a signal ends it; when this returns, all of it has stopped.

    Raises:
        RunningError: it runs already.
        FeatureStoreError: something cannot be found, fetched or prepared; nothing is left running.
    """
    platform_id = home.open()
    with home.alone(say) as held:
        plan = _plan(home, settings, environ, platform_id, generator, say)
        home.write_addresses(plan.addresses)
        started_at = now()

        def save(processes: Sequence[ProcessState], ready: bool) -> None:
            home.write_state(
                PlatformState(
                    pid=os.getpid(),
                    started_at=started_at,
                    ready=ready,
                    dagster_url=plan.dagster_url,
                    processes=tuple(processes),
                )
            )

        report = show(Running(Settings.from_env(plan.env), plan.dagster_url))
        try:
            Supervisor(plan.units, logs=home.logs, env=plan.env, held=(held,), report=report, save=save).run()
        finally:
            report.close()


def _plan(
    home: Home,
    settings: Settings,
    environ: Mapping[str, str],
    platform_id: str,
    generator: bool | None,
    say: Say,
) -> Plan:
    try:
        return plan_platform(home, settings, environ, platform_id=platform_id, generator=generator, say=say)
    except KeyboardInterrupt:
        # Threads that fetch something would be waited for; what they had started ends with this process.
        say("stopped")
        os._exit(1)
