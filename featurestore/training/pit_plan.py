"""What a training set reads, as a plain value: it can be printed, kept in a receipt, and run again without the code."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from featurestore.definitions.durations import duration
from featurestore.definitions.feature import Aggregation, Function
from featurestore.definitions.project import Project
from featurestore.definitions.reference import FeatureOf
from featurestore.definitions.view import FeatureView, View, asked_for
from featurestore.errors import DefinitionError, TerminalError
from featurestore.landing.batch import from_micros, to_micros
from featurestore.transform.derivation import Derivation, derivation
from featurestore.windows import Window

MICROSECOND = timedelta(microseconds=1)
FOREVER_US = 2**62

Column = tuple[str, str]  # (target, feature): two versions of a view may be read side by side


@dataclass(frozen=True, slots=True)
class RowRead:
    """The newest row's value; too old is NULL, of exactly `max_age_us` is fresh."""

    name: str
    dtype: str  # str, int, float or bool
    max_age_us: int | None = None


@dataclass(frozen=True, slots=True)
class WindowRead:
    """A fold over the inputs in `column` that the window covers; NULL inputs do not take part."""

    name: str
    dtype: str
    column: str
    function: Function
    window: Window


@dataclass(frozen=True, slots=True)
class ViewRead:
    """What is read of one version of a view."""

    target: str
    view: str
    version: int
    digest: str
    entity: str
    key: tuple[str, ...]  # the spine's columns that identify the entity
    rows: tuple[RowRead, ...] = ()
    windows: tuple[WindowRead, ...] = ()

    @property
    def distinct_windows(self) -> tuple[Window, ...]:
        return tuple(dict.fromkeys(one.window for one in self.windows))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the log that it takes."""
        return tuple(dict.fromkeys([*(one.name for one in self.rows), *(one.column for one in self.windows)]))


@dataclass(frozen=True, slots=True)
class KnownAt:
    """Which rows count, by when they were landed: all of them, those up to one time, or up to each row's own."""

    kind: Literal["all", "time", "row"] = "all"
    time_us: int = FOREVER_US  # for "time"
    delay_us: int = 0  # for "row": a row landed at t counts from t + delay

    @classmethod
    def of(cls, known_at: datetime | Literal["row"] | None, delay: timedelta) -> "KnownAt":
        """Raises TerminalError for what is no known_at, a time without a zone, and a delay that has no meaning."""
        if known_at not in (None, "row") and not isinstance(known_at, datetime):
            raise TerminalError(f'known_at {known_at!r} is not None, "row" or an aware datetime')
        if not isinstance(delay, timedelta):
            raise TerminalError(f"delay {delay!r} is not a timedelta, e.g. timedelta(minutes=5)")
        if delay and known_at != "row":
            raise TerminalError('a delay needs known_at="row"')
        if delay < timedelta(0):
            raise TerminalError(f"a delay of {delay} would show rows before they were landed")
        if known_at is None:
            return cls()
        if isinstance(known_at, datetime):
            if known_at.tzinfo is None:
                raise TerminalError(f"known_at {known_at} has no time zone; give an aware datetime")
            return cls("time", to_micros(known_at))
        return cls("row", delay_us=delay // MICROSECOND)

    def __str__(self) -> str:
        if self.kind == "time":
            return from_micros(self.time_us).astimezone(UTC).isoformat()
        return f"row + {timedelta(microseconds=self.delay_us)}" if self.delay_us else self.kind


@dataclass(frozen=True, slots=True)
class PitPlan:
    """Everything that decides the features of a training set, apart from the spine and the rows of the log."""

    features: tuple[Column, ...]  # what comes out, in order
    views: tuple[ViewRead, ...]
    derivations: tuple[Derivation, ...]  # in an order that can be computed
    known_at: KnownAt = KnownAt()

    @property
    def keys(self) -> tuple[tuple[str, ...], ...]:
        """The key columns of each entity that the spine has to identify."""
        return tuple(dict.fromkeys(view.key for view in self.views))

    @property
    def request(self) -> dict[str, str]:
        """The spine's columns that derived features compute with, and their types."""
        return {one.name: one.dtype for what in self.derivations for one in what.inputs if not one.target}

    def __str__(self) -> str:
        lines = [f"features  {', '.join(name for _, name in self.features)}", f"known_at  {self.known_at}"]
        lines += [f"view      {one.target} by {', '.join(one.key)}: {', '.join(one.columns)}" for one in self.views]
        lines += [f"derived   {one.target}: {one.sql}" for one in self.derivations]
        return "\n".join(lines)


def plan_reads(project: Project, features: Sequence[FeatureOf | View], known_at: KnownAt) -> PitPlan:
    """Plan the features, a view standing for all of its features; what derived ones need is read with them.

    Raises:
        DefinitionError: nothing is asked for, something is not declared, or two features have one name.
    """
    asked = asked_for(features)
    if not asked:
        raise DefinitionError("no features are asked for; name at least one feature or view")
    wanted = list(dict.fromkeys(column for one in asked for column in _columns(project, one)))
    names = [name for _, name in wanted]
    twice = next((column for column in wanted if names.count(column[1]) > 1), None)
    if twice:
        targets = " and ".join(target for target, name in wanted if name == twice[1])
        raise DefinitionError(f"feature {twice[1]!r} is asked for twice, from {targets}; make two training sets")
    reading = _Reading(project)
    for column in wanted:
        reading.add(column)
    views = tuple(_view_read(view, reading.names[target]) for target, view in reading.views.items())
    return PitPlan(tuple(wanted), views, tuple(reading.derivations.values()), known_at)


class _Reading:
    """Collects the views that columns come from, through derived views as far as it takes."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self.views: dict[str, FeatureView] = {}
        self.names: dict[str, list[str]] = {}
        self.derivations: dict[str, Derivation] = {}

    def add(self, column: Column) -> None:
        target, name = column
        if not target:  # a value of the request
            return
        view_name, _, version = target.partition("@v")
        view = self._project.view(view_name, int(version))
        if isinstance(view, FeatureView):
            self.views[target] = view
            self.names.setdefault(target, []).append(name)
        elif target not in self.derivations:
            what = derivation(view)
            for one in what.inputs:
                self.add((one.target, one.name))
            self.derivations[target] = what  # after its inputs


def _columns(project: Project, wanted: FeatureOf | View) -> Iterator[Column]:
    if isinstance(wanted, FeatureOf):
        view = project.view(wanted.view, wanted.version)
        yield f"{wanted.view}@v{wanted.version}", view[wanted.name].name  # raises when the view has no such feature
    else:
        project.view(wanted.name, wanted.version)
        for feature in wanted.all_features:
            yield f"{wanted.name}@v{wanted.version}", feature.name


def _view_read(view: FeatureView, names: Sequence[str]) -> ViewRead:
    wanted = set(names)
    return ViewRead(
        target=view.target,
        view=view.name,
        version=view.version,
        digest=view.digest,
        entity=view.entity.name,
        key=view.entity.key_columns,
        rows=tuple(
            RowRead(one.name, one.dtype.__name__, None if (age := one.longest_age) is None else age // MICROSECOND)
            for one in view.row_features
            if one.name in wanted
        ),
        windows=tuple(
            WindowRead(one.name, one.dtype.__name__, declared.name, declared.function, _window(declared, text))
            for declared in view.features
            if isinstance(declared, Aggregation)
            for one, text in zip(declared.features, declared.windows, strict=True)
            if one.name in wanted
        ),
    )


def _window(declared: Aggregation, text: str) -> Window:
    return Window.of(duration(text, f"aggregation {declared.name!r}, windows"))
