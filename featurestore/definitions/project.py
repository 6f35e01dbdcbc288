"""Everything declared, checked as a whole."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TypeVar

from featurestore.definitions.entity import Entity
from featurestore.definitions.listed import listed
from featurestore.definitions.model import Model
from featurestore.definitions.names import check_unique
from featurestore.definitions.place import raised_at
from featurestore.definitions.query import Query
from featurestore.definitions.reference import FeatureOf
from featurestore.definitions.source import Source
from featurestore.definitions.view import DerivedView, FeatureView, View
from featurestore.errors import DefinitionError, FeatureStoreError, SettingsError, UnknownFeatureError

Named = TypeVar("Named", Entity, Source)


@dataclass(frozen=True)
class Project:
    """All views, models and queries; sources and entities are reached from the views."""

    views: tuple[View, ...]
    models: tuple[Model, ...] = ()
    queries: tuple[Query, ...] = ()

    @classmethod
    def from_modules(cls, *modules: ModuleType) -> "Project":
        """Collect the views, models and queries that are module-level names of `modules`."""
        modules = listed(modules, ModuleType, "Project.from_modules", "modules: import your files, and name them here")
        values = [value for module in modules for value in vars(module).values()]
        return cls(
            views=tuple(dict.fromkeys(v for v in values if isinstance(v, FeatureView | DerivedView))),
            models=tuple(dict.fromkeys(v for v in values if isinstance(v, Model))),
            queries=tuple(dict.fromkeys(v for v in values if isinstance(v, Query))),
        )

    def __post_init__(self) -> None:
        check_unique("view", (f"{view.name} v{view.version}" for view in self.views))
        check_unique("model", (model.model_id for model in self.models))
        check_unique("query", (query.name for query in self.queries))
        check_unique("source", (source.name for source in self.sources))
        check_unique("entity", (entity.name for entity in self.entities))
        self._check_feature_names()
        for model in self.models:
            for wanted in model.expected_features:
                self._check_expected(model, wanted)

    def _check_feature_names(self) -> None:
        owner_of: dict[str, View] = {}
        for view in self.views:
            for feature in view.all_features:
                other = owner_of.setdefault(feature.name, view)
                if other.name != view.name:
                    raise DefinitionError(
                        f"feature {feature.name!r} is declared in view {other.name!r} and in view {view.name!r}; "
                        "a feature's name is unique in the store"
                    )
                if other[feature.name].feature.dtype is not feature.dtype:
                    raise DefinitionError(
                        f"feature {feature.name!r} changes its type between version {other.version} and version "
                        f"{view.version} of view {view.name!r}; a feature has one type for ever: give it another name"
                    )

    def _check_expected(self, model: Model, wanted: FeatureOf) -> None:
        view = next((v for v in self.views if (v.name, v.version) == (wanted.view, wanted.version)), None)
        where = f"the project (model {model.model_id!r})"
        if view is None or wanted.feature not in view.all_features:
            names = [feature.name for v in self.views for feature in v.all_features]
            raise UnknownFeatureError(wanted.name, where, get_close_matches(wanted.name, names, n=1))
        if isinstance(view, FeatureView) and not wanted.feature.online:
            raise DefinitionError(
                f"model {model.model_id!r} expects feature {wanted.name!r}, which is not online; "
                f"set online=True in view {wanted.view!r}"
            )

    @cached_property
    def feature_views(self) -> tuple[FeatureView, ...]:
        return tuple(view for view in self.views if isinstance(view, FeatureView))

    @cached_property
    def derived_views(self) -> tuple[DerivedView, ...]:
        return tuple(view for view in self.views if isinstance(view, DerivedView))

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        return _distinct(view.source for view in self.feature_views)

    @cached_property
    def entities(self) -> tuple[Entity, ...]:
        return _distinct(view.entity for view in self.feature_views)

    def views_of(self, source: Source) -> tuple[FeatureView, ...]:
        """The views that read `source`."""
        return tuple(view for view in self.feature_views if view.source.name == source.name)

    def view(self, name: str, version: int | None = None) -> View:
        """The view of that name; without a version, the newest declared one."""
        versions = [view for view in self.views if view.name == name and version in {None, view.version}]
        if not versions:
            what = f"view {name!r}" + (f" version {version}" if version else "")
            raise DefinitionError(f"{what} is not declared{_near(name, (view.name for view in self.views))}")
        return max(versions, key=lambda view: view.version)

    def source(self, name: str) -> Source:
        return _by_name("source", name, self.sources)

    def entity(self, name: str) -> Entity:
        return _by_name("entity", name, self.entities)

    def find(self, text: str, active: Mapping[str, int] = MappingProxyType({})) -> FeatureOf | View:
        """A view or a feature by its name as text: `credit_profile` or `clicks_7d`.

        Of a view with several versions, the one that `active` names, else the newest that has it.

        Raises:
            UnknownFeatureError: there is neither.
        """
        for view in sorted(self.views, key=lambda view: (view.version != active.get(view.name), -view.version)):
            if view.name == text:
                return view
            if text in {feature.name for feature in view.all_features}:
                return view[text]
        names = [name for view in self.views for name in (view.name, *(f.name for f in view.all_features))]
        raise UnknownFeatureError(text, "the project", get_close_matches(text, names, n=1))


def load_project(reference: str) -> Project:
    """Import the project that `module:NAME` names; the working directory is importable.

    Raises:
        SettingsError: there is no such module or name, or it is not a Project.
        DefinitionError: the user's code fails; with its line.
    """
    module_name, _, name = reference.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _failed(error) from error
        raise SettingsError(f"FEATURESTORE_PROJECT: there is no module {module_name!r}") from error
    except Exception as error:  # the user's code: whatever it raises is said with its place
        raise _failed(error) from error
    project = getattr(module, name or "PROJECT", None)
    if not isinstance(project, Project):
        raise SettingsError(f"FEATURESTORE_PROJECT: {module_name} has no Project called {name or 'PROJECT'!r}")
    return project


def _failed(error: Exception) -> DefinitionError:
    kind = "" if isinstance(error, FeatureStoreError) else f"{type(error).__name__}: "
    return DefinitionError(f"{kind}{error} ({raised_at(error)})")


def _distinct(values: Iterable[Named]) -> tuple[Named, ...]:
    """Equal ones once; not a set, because a source's schema has no hash."""
    found: list[Named] = []
    for value in values:
        if value not in found:
            found.append(value)
    return tuple(found)


def _by_name(kind: str, name: str, values: Iterable[Named]) -> Named:
    by_name = {value.name: value for value in values}
    if name not in by_name:
        raise DefinitionError(f"{kind} {name!r} is not declared{_near(name, by_name)}")
    return by_name[name]


def _near(name: str, names: Iterable[str]) -> str:
    known = list(dict.fromkeys(names))
    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there is {', '.join(known) or 'none'}"
