"""Features by names or by model: request → store → reply; the same for both transports."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from featurestore.definitions.dtypes import ScalarType
from featurestore.definitions.reference import FeatureOf
from featurestore.definitions.view import View
from featurestore.errors import DefinitionError
from featurestore.online.reads import OnlineReads
from featurestore.online.values import Scalar
from featurestore.store import OnlineRow, Store
from featurestore.versions import Active
from featurestore_serving.refusals import Reason, RefusedError

MAX_PLANS = 256  # kept; what clients ask for is theirs to choose, so it is bounded
LONGEST_TEXT = 4096  # of a key or a request value, in characters

_LARGEST, _SMALLEST = 2**63 - 1, -(2**63)
_NAMES: Mapping[type, str] = {
    int: "a whole number",
    str: "a text",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


Keys = Mapping[str, Sequence[Scalar]]  # key column → one value per row
RequestValues = Mapping[str, Sequence[Scalar | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureRequest:
    """What a client asks for; nothing is checked yet."""

    features: Sequence[str] = ()
    model: str = ""
    keys: Keys
    request: RequestValues


@dataclass(frozen=True, slots=True)
class Answer:
    """One row per row of the request, in order; `names` are the features, in the order they were asked for."""

    names: tuple[str, ...]
    dtypes: tuple[ScalarType, ...]  # of the features
    rows: list[OnlineRow]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for."""

    rows: int
    features: int
    values: int  # rows times features


@dataclass(frozen=True, slots=True)
class _Column:
    """What the values of a column of the request must be."""

    name: str
    dtypes: frozenset[type]
    expected: str

    @classmethod
    def of(cls, name: str, dtypes: Iterable[ScalarType], *, nullable: bool = False) -> "_Column":
        accepted: set[type] = set(dtypes)
        expected = " or ".join(sorted(_NAMES[dtype] for dtype in accepted))
        if float in accepted:
            accepted.add(int)  # JSON has one kind of number
        if nullable:
            accepted.add(type(None))
        return cls(name, frozenset(accepted), expected)


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked choice of features: what they are read by."""

    features: tuple[FeatureOf | View, ...]
    names: tuple[str, ...]
    dtypes: tuple[ScalarType, ...]
    keys: Mapping[str, _Column]
    request: Mapping[str, _Column]


class Features:
    """Answers requests; thread-safe. What cannot be answered is a RefusedError, what may be later a TransientError."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store, self._limits = store, limits
        self._plans: dict[tuple[str | Active, ...], Plan] = {}

    def answer(self, asked: FeatureRequest) -> Answer:
        return self.read(self._plan(asked), asked.keys, asked.request)

    def read(self, plan: Plan, keys: Keys, request: RequestValues) -> Answer:
        rows = self._rows(plan, keys, request)
        found = self._store.online({**keys, **request}, plan.features) if rows else []
        return Answer(plan.names, plan.dtypes, found)

    def plan(self, features: tuple[FeatureOf | View, ...]) -> Plan:
        """What it takes to read these features.

        Raises:
            DefinitionError: one is not read online.
            RefusedError: they are too many, or cannot be asked for together.
        """
        reads = self._store.reading(features)
        if len(reads.names) > self._limits.features:
            raise self._too_many(len(reads.names))
        request = {one.name: _Column.of(one.name, [one.dtype], nullable=one.nullable) for one in reads.request}
        keys = {name: self._key_column(reads, name) for name in reads.key_columns}
        both = sorted(keys.keys() & request.keys())
        if both:
            raise RefusedError(Reason.INVALID, f"{both[0]!r} is a key column and a request value; make two requests")
        return Plan(features, reads.names, reads.dtypes, keys, request)

    def catalogue(self) -> Mapping[str, object]:
        """What can be asked for, as plain values for JSON."""
        project = self._store.project
        models = [
            {"model": one.model_id, "features": [feature.name for feature in one.expected_features]}
            for one in project.models
        ]
        return {"views": [one for view in project.views if (one := self._listed(view))], "models": models}

    def _listed(self, view: View) -> Mapping[str, object]:
        """A view with what its features are asked for by; nothing if they are not read online."""
        try:
            reads = self._store.reading([view])
        except DefinitionError:
            return {}
        return {
            "view": view.name,
            "version": view.version,
            "keys": list(reads.key_columns),
            "request": {one.name: one.dtype.__name__ + (" | null" if one.nullable else "") for one in reads.request},
            "features": {name: dtype.__name__ for name, dtype in zip(reads.names, reads.dtypes, strict=True)},
            "description": view.description,
        }

    def _plan(self, asked: FeatureRequest) -> Plan:
        if bool(asked.features) == bool(asked.model):
            raise RefusedError(Reason.INVALID, "ask for features by name, or for the features of a model: one of them")
        active = () if asked.model else self._store.active()
        key = ("model", asked.model) if asked.model else ("features", active, *asked.features)
        plan = self._plans.get(key)
        if plan is None:
            if len(asked.features) > self._limits.features:
                raise self._too_many(len(asked.features))
            plan = self.plan(self._of_model(asked.model) if asked.model else self._named(asked.features, active))
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            self._plans[key] = plan
        return plan

    def _of_model(self, model_id: str) -> tuple[FeatureOf | View, ...]:
        models = {model.model_id: model for model in self._store.project.models}
        if model_id not in models:
            raise RefusedError(Reason.INVALID, f"there is no model {_shown(model_id)}{_near(model_id, models)}")
        return tuple(models[model_id].expected_features)

    def _named(self, names: Sequence[str], active: Active) -> tuple[FeatureOf | View, ...]:
        return tuple(self._store.project.find(name[:LONGEST_TEXT], dict(active)) for name in names)

    def _key_column(self, reads: OnlineReads, name: str) -> _Column:
        """A key's type is that of the column in the sources; they may differ, since the text is what identifies."""
        entities = {entity.name for entity, _ in reads.stored if name in entity.key_columns}
        views = (view for view in self._store.project.feature_views if view.entity.name in entities)
        return _Column.of(name, (view.source.columns[name].dtype for view in views))

    def _rows(self, plan: Plan, keys: Keys, request: RequestValues) -> int:
        """Check both groups of columns; return how many rows they have."""
        _check_names("key column", "keys", keys, plan.keys)
        _check_names("request value", "request", request, plan.request)
        lengths = {name: len(values) for name, values in (*keys.items(), *request.items())}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{name} has {count}" for name, count in lengths.items())
            raise RefusedError(Reason.INVALID, f"every column has one value per row, and {shown}")
        rows = next(iter(lengths.values()), 0)
        if rows > self._limits.rows:
            raise RefusedError(Reason.TOO_LARGE, f"{rows} rows in one request; at most {self._limits.rows} are allowed")
        if rows * len(plan.names) > self._limits.values:
            shown = f"{rows} rows of {len(plan.names)} features"
            raise RefusedError(
                Reason.TOO_LARGE, f"{shown} in one request; at most {self._limits.values} values are allowed"
            )
        for columns, given in ((plan.keys, keys), (plan.request, request)):
            for name, values in given.items():
                _check_values(columns[name], values)
        return rows

    def _too_many(self, count: int) -> RefusedError:
        return RefusedError(
            Reason.TOO_LARGE, f"{count} features in one request; at most {self._limits.features} are allowed"
        )


def _check_names(kind: str, group: str, given: Mapping[str, object], wanted: Mapping[str, _Column]) -> None:
    for name in wanted:
        if name not in given:
            raise RefusedError(Reason.INVALID, f"{kind} {name!r} is missing in {group!r}")
    for name in given:
        if name not in wanted:
            hint = _near(name, wanted)
            raise RefusedError(Reason.INVALID, f"{kind} {_shown(name)} is not needed by these features{hint}")


def _check_values(column: _Column, values: Sequence[Scalar | None]) -> None:
    if {type(value) for value in values} <= column.dtypes and all(map(_is_storable, values)):
        return
    for row, value in enumerate(values):
        where = f"{column.name!r}, row {row}: {_shown(value)}"
        if type(value) not in column.dtypes:
            raise RefusedError(Reason.INVALID, f"{where} is {_NAMES[type(value)]}; it must be {column.expected}")
        if not _is_storable(value):
            raise RefusedError(Reason.INVALID, f"{where} is too large")


def _is_storable(value: Scalar | None) -> bool:
    if type(value) is int:
        return _SMALLEST <= value <= _LARGEST
    return type(value) is not str or len(value) <= LONGEST_TEXT


def _near(name: str, known: Mapping[str, object]) -> str:
    near = get_close_matches(name[:LONGEST_TEXT], known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there is {', '.join(known)}" if known else ""


def _shown(value: object) -> str:
    """A client's value in a message, not at its length."""
    text = repr(value) if not isinstance(value, int) or abs(value) < 2**64 else "a number of more than 64 bits"
    return text if len(text) <= 100 else f"{text[:100]}…"
