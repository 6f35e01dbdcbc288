"""Which version of a view is active: what readers get that name a feature as text. `view_versions` in the log decides.

The online store has a copy, because it is what such readers ask; models and references in Python name their version.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from time import monotonic

from featurestore.database.client import Database
from featurestore.database.jobs import ActivateJob
from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView
from featurestore.errors import JobRefusedError
from featurestore.offline.log import Ledger
from featurestore.offline.versions import LoggedVersion, logged_versions
from featurestore.online.store import OnlineStore
from featurestore.online.values import Activation

KEPT_S = 1.0  # how long a reader believes what it was told

Active = tuple[tuple[str, int], ...]  # (view, version) of the views that are declared in several versions


class ActiveVersions:
    """The active version of each view of the project that is declared in several; thread-safe."""

    def __init__(
        self, project: Project, database: Database, online: OnlineStore, *, clock: Callable[[], float] = monotonic
    ) -> None:
        self._declared = {name: {view.version for view in views} for name, views in several(project).items()}
        self._database, self._online, self._clock = database, online, clock
        self._lock = threading.Lock()
        self._asked_at: float | None = None
        self._active: Active = ()

    def now(self) -> Active:
        """What was active at most a second ago; no I/O where no view has several versions.

        Raises:
            TransientError: the store does not answer.
        """
        if not self._declared:
            return ()
        with self._lock:
            if self._asked_at is None or self._clock() - self._asked_at >= KEPT_S:
                asked_at = self._clock()
                self._active, self._asked_at = self._read(), asked_at
            return self._active

    def _read(self) -> Active:
        active = self._online.active()
        if not self._declared.keys() <= active.keys():  # a Redis that was emptied
            active = {**{one.view: one.version for one in logged_versions(self._database) if one.active}, **active}
        return tuple((name, active[name]) for name, own in self._declared.items() if active.get(name) in own)


def several(project: Project) -> Mapping[str, list[FeatureView]]:
    """The views that are declared in more than one version, oldest first."""
    by_name: dict[str, list[FeatureView]] = {}
    for view in sorted(project.feature_views, key=lambda view: view.version):
        by_name.setdefault(view.name, []).append(view)
    return {name: views for name, views in by_name.items() if len(views) > 1}


def activate(target: str, database: Database, online: OnlineStore) -> None:
    """Make a version the active one, by hand: it stays, whatever becomes complete of what is there now.

    Raises:
        JobRefusedError: there is no such version.
    """
    database.ensure(ActivateJob(f"activate {target}", target, by_hand=True))
    mirror(logged_versions(database), online)


def activate_complete(project: Project, ledger: Ledger, database: Database, online: OnlineStore) -> bool:
    """Activate what has become complete, and tell the online store what is active.

    Complete is a version that has every batch of the active one, all of them pushed. Returns whether to ask again
    later: with one version of each view, which is active, there is nothing to choose.
    """
    known = logged_versions(database)
    may = {one.target for one in known if one.may_activate}
    active = {one.view: one.target for one in known if one.active}
    for view in sorted(project.feature_views, key=lambda view: view.version):
        is_due = view.target in may and _is_complete(view, active[view.name], ledger, online)
        if is_due and _activated(view.target, database):
            active[view.name] = view.target
    is_settled = not several(project) and all(active.get(view.name) == view.target for view in project.feature_views)
    if not is_settled:
        mirror(logged_versions(database), online)
    return not is_settled


def mirror(versions: Sequence[LoggedVersion], online: OnlineStore) -> None:
    """Tell the online store what is active, where it does not know it."""
    found = online.active()
    choices = [Activation(one.view, one.version, one.activated_seq, one.epoch) for one in versions if one.active]
    if new := [one for one in choices if found.get(one.view) != one.version]:
        online.activate(new)


def _is_complete(view: FeatureView, active: str, ledger: Ledger, online: OnlineStore) -> bool:
    lines = {row.batch_id: row.commit_seq for row in ledger.lines(view.target)}
    if any(row.batch_id not in lines for row in ledger.lines(active)):
        return False
    pushed = online.pushed(view) if view.online_features else None
    return pushed is None or all(commit_seq in pushed for commit_seq in lines.values())


def _activated(target: str, database: Database) -> bool:
    """The database looks for itself: since the ledger was read, the active version may have got another batch."""
    try:
        database.ensure(ActivateJob(f"activate {target}", target, by_hand=False))
    except JobRefusedError:
        return False
    return True
