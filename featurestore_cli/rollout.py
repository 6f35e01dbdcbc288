"""What `apply` does, step by step; each may be done again."""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from time import monotonic

from featurestore.database.jobs import DropJob
from featurestore.definitions.changes import Change, Kind
from featurestore.errors import TerminalError
from featurestore.landing.zone import LandingZone
from featurestore.offline.log import Ledger
from featurestore.offline.tables import schema_job
from featurestore.offline.versions import LoggedVersion, logged_versions
from featurestore.planning import Plan, make_plan
from featurestore.store import Store
from featurestore.versions import activate_complete
from featurestore_cli.output import counted, say
from featurestore_cli.stack.state import Home
from featurestore_cli.webserver import Webserver

HOUR_KEY = "%Y-%m-%d-%H:%M"  # of a partition, see featurestore_dagster.partitions
INGEST, SERVER = ("ingest-kafka", "ingest-grpc"), "server"
LOOK_S = 0.5
RESTART_S = 60.0
ACTIVATE_S = 30.0  # a version lacks a batch for a moment whenever one arrives
FAILED = {"FAILED", "CANCELED", "COMPLETED_FAILED"}


class Rollout:
    """The steps, on a store with the new definitions."""

    def __init__(self, store: Store, zone: LandingZone, webserver: Webserver, *, namespace: str) -> None:
        self._store, self._zone, self._webserver, self._namespace = store, zone, webserver, namespace
        self._backfills: dict[str, str] = {}  # view → id

    def register(self) -> None:
        """Make the tables, and have Dagster load the code: from now on what lands is the new versions' own."""
        self._store.database.ensure(schema_job(self._store.project))
        for location in self._webserver.locations():
            self._webserver.reload(location)

    def backfill(self) -> None:
        """Start a Dagster backfill per view that lacks history."""
        plan = self._plan()  # anew: more has landed until the versions were registered
        for name in dict.fromkeys(view.name for view in self._store.project.feature_views):
            versions = [view for view in self._store.project.feature_views if view.name == name]
            batches = {batch for view in versions for batch in plan.backfill[view.target]}
            if not batches:
                continue
            kinds = ("features", "online") if any(view.online_features for view in versions) else ("features",)
            assets = [[*([self._namespace] if self._namespace else []), kind, name] for kind in kinds]
            hours = sorted({batch.hour.strftime(HOUR_KEY) for batch in batches})
            backfill_id = self._webserver.backfill(assets, hours, f"history of {name}")
            self._backfills[name] = backfill_id
            where = f"{self._webserver.url}/runs/b/{backfill_id}"
            what = f"{counted(len(batches), 'batch', 'batches')} of {counted(len(hours), 'hour')}"
            say(f"{name}: history of {what}, {where}")

    def wait(self) -> None:
        """Wait until the ledger has every batch that was missing.

        Raises:
            TerminalError: a backfill ended without it.
        """
        never = threading.Event()
        while self._backfills:
            ended = {name: self._webserver.backfill_status(id_) for name, id_ in self._backfills.items()}
            missing = {target.partition("@")[0] for target, batches in self._plan().backfill.items() if batches}
            for name, status in ended.items():
                if name not in missing:
                    del self._backfills[name]
                elif status in FAILED or status.startswith("COMPLETED"):
                    raise TerminalError(
                        f"the backfill of {name} ended ({status.lower()}) and history is still missing: "
                        f"{self._webserver.url}/runs/b/{self._backfills[name]}; then `featurestore apply` again"
                    )
            never.wait(LOOK_S if self._backfills else 0)

    def finish(self, changes: Sequence[Change]) -> None:
        """Activate what is complete, and drop what is not declared any more."""
        wanted = {change.view for change in changes if change.kind in {Kind.NEW, Kind.CHANGED}}
        _until(lambda: self._is_active(wanted), ACTIVATE_S)
        known = {one.target: one for one in logged_versions(self._store.database)}
        for name in sorted(wanted):
            active = next(one for one in known.values() if one.view == name and one.active)
            say(f"{name} v{active.version} is active")
        for change in changes:
            if change.kind is Kind.GONE:
                self._drop(known[change.target], list(known.values()))

    def _is_active(self, wanted: set[str]) -> bool:
        """Whether nothing is left to become active by itself."""
        ledger = Ledger()
        ledger.refresh(self._store.database)
        activate_complete(self._store.project, ledger, self._store.database, self._store.online_store)
        declared = {view.target for view in self._store.project.feature_views if view.name in wanted}
        return not any(one.may_activate and one.target in declared for one in logged_versions(self._store.database))

    def _drop(self, gone: LoggedVersion, known: Sequence[LoggedVersion]) -> None:
        others = [one for one in known if one.view == gone.view and one.target != gone.target and not one.dropped]
        if gone.active and others:
            say(f"{gone.view} v{gone.version} stays: it is active; `featurestore views activate`, then apply again")
            return
        self._store.database.ensure(DropJob(f"drop {gone.target}", gone.target))
        names = [feature.name for feature in gone.row_features]
        self._store.online_store.forget(gone.entity, gone.view, gone.version, names)
        say(f"{gone.view} v{gone.version} was dropped")

    def _plan(self) -> Plan:
        return make_plan(self._store.project, self._zone, self._store.database)


def restart(home: Home, daemons: Sequence[str]) -> None:
    """Have daemons read the definitions, which they do when they start; nothing is lost meanwhile."""
    state = home.state() if home.running() else None
    before = {one.name: one.pid for one in state.processes if one.name in daemons and one.pid} if state else {}
    if not before:
        say(f"start {', '.join(daemons)} again, wherever they run: they read the definitions when they start")
        return
    for pid in before.values():
        os.kill(pid, signal.SIGTERM)  # the supervisor starts it again
    say(f"{', '.join(before)} {'start' if len(before) > 1 else 'starts'} again, with the new definitions")
    _until(lambda: _restarted(home, before), RESTART_S)


def _restarted(home: Home, before: dict[str, int]) -> bool:
    state = home.state()
    now = {one.name: one for one in state.processes} if state else {}
    return all(now[name].state == "ready" and now[name].pid != pid for name, pid in before.items() if name in now)


def _until(holds: Callable[[], bool], within_s: float) -> bool:
    deadline, never = monotonic() + within_s, threading.Event()
    while not holds():
        if monotonic() > deadline:
            return False
        never.wait(LOOK_S)
    return True
