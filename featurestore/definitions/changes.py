"""What declared views are to the log that is there: new, changed, gone; what `plan` says and `apply` does."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from featurestore.definitions.project import Project
from featurestore.definitions.registered import Registered, refusal
from featurestore.definitions.view import FeatureView


class Kind(StrEnum):
    """What has become of a version of a view, as `plan` marks it."""

    NEW = "+"
    CHANGED = "~"  # another version, history that is missing, another choice of online features
    GONE = "-"
    REFUSED = "!"


@dataclass(frozen=True, slots=True)
class Known:
    """A version in the log. `features` and `online` name those that are the newest row's value."""

    view: str
    version: int
    digest: str
    features: frozenset[str]
    online: frozenset[str]
    dropped: bool = False

    @property
    def target(self) -> str:
        return f"{self.view}@v{self.version}"


@dataclass(frozen=True, slots=True)
class Missing:
    """Landed batches that a version does not have and that no sensor brings: what a backfill has to process."""

    batches: int = 0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the plan."""

    kind: Kind
    view: str
    version: int
    text: str
    missing: Missing = Missing()
    models: tuple[str, ...] = ()  # in production, which read another version of the view
    error: str = ""

    @property
    def target(self) -> str:
        return f"{self.view}@v{self.version}"


def find_changes(
    project: Project,
    known: Sequence[Known],
    missing: Mapping[str, Missing],
    production: Mapping[str, Mapping[str, int]],
) -> list[Change]:
    """Compare what is declared with what is logged.

    `missing` is by target; `production` names the view versions that each production model reads.
    """
    registered: Registered = {one.target: "" if one.dropped else one.digest for one in known}
    alive = {one.target: one for one in known if not one.dropped}
    changes = [
        change
        for view in project.feature_views
        if (change := _change(view, project, alive, registered, missing.get(view.target, Missing()), production))
    ]
    return [*changes, *_gone(project, alive.values(), production)]


def _change(
    view: FeatureView,
    project: Project,
    alive: Mapping[str, Known],
    registered: Registered,
    missing: Missing,
    production: Mapping[str, Mapping[str, int]],
) -> Change | None:
    if reason := refusal(view, registered):
        text = f"changed, version is still {view.version}"
        return Change(Kind.REFUSED, view.name, view.version, text, error=f"{view.name}: {reason} ({view.declared_at})")
    models = tuple(model for model, pins in production.items() if pins.get(view.name, view.version) != view.version)
    if view.target not in alive:
        before = max((one.version for one in alive.values() if one.view == view.name), default=0)
        if not before:
            return Change(Kind.NEW, view.name, view.version, "new", missing)
        what = _difference(view, before, project, alive[f"{view.name}@v{before}"])
        text = f"v{before} → v{view.version}" + (f": {what}" if what else "")
        return Change(Kind.CHANGED, view.name, view.version, text, missing, models)
    said = _online_difference(view, alive[view.target])
    if missing.batches:
        said.append("history is missing")
    if said:
        return Change(Kind.CHANGED, view.name, view.version, f"v{view.version}: {', '.join(said)}", missing)
    return None


def _difference(view: FeatureView, before: int, project: Project, known: Known) -> str:
    """Which features differ; of a version that is not in the code any more, only the names are known."""
    old = next((one for one in project.feature_views if (one.name, one.version) == (view.name, before)), None)
    if old is None:
        names = {feature.name for feature in view.row_features}
        return ", ".join([*(f"+{name}" for name in sorted(names - known.features)), *_removed(known.features - names)])
    columns = {column.name: column for column in old.columns}
    changed = [column.name for column in view.columns if columns.get(column.name) != column]
    return ", ".join([*changed, *_removed(columns.keys() - {column.name for column in view.columns})])


def _removed(names: Iterable[str]) -> list[str]:
    return [f"-{name}" for name in sorted(names)]


def _online_difference(view: FeatureView, known: Known) -> list[str]:
    online = {feature.name for feature in view.online_row_features}  # windows are not known of a version in the log
    return [
        *(f"{name} goes online" for name in sorted(online - known.online)),
        *(f"{name} is not online any more" for name in sorted(known.online - online)),
    ]


def _gone(project: Project, alive: Iterable[Known], production: Mapping[str, Mapping[str, int]]) -> Iterator[Change]:
    declared = {view.target for view in project.feature_views}
    for one in alive:
        if one.target in declared:
            continue
        pinned = tuple(model for model, pins in production.items() if pins.get(one.view) == one.version)
        text = f"v{one.version} is not declared any more"
        if pinned:
            error = f"{one.view}: {', '.join(pinned)} (production) reads version {one.version}; keep it in the code"
            yield Change(Kind.REFUSED, one.view, one.version, text, models=pinned, error=error)
        else:
            yield Change(Kind.GONE, one.view, one.version, text)
