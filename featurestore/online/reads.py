"""What a caller asks for by features → what is read of each entity, and what is derived from it at this moment."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from featurestore.definitions.dtypes import ScalarType, arrow_type, scalar_of
from featurestore.definitions.entity import Entity
from featurestore.definitions.listed import shown
from featurestore.definitions.project import Project
from featurestore.definitions.reference import FeatureOf
from featurestore.definitions.view import DerivedView, FeatureView, View, asked_for
from featurestore.entity_id import entity_id
from featurestore.errors import DefinitionError, TerminalError
from featurestore.online.store import OnlineStore, Read
from featurestore.online.values import OnlineValue, Scalar, Status
from featurestore.transform.derivation import TYPES, Derivation, Input, derivation
from featurestore.transform.derive import derive

MAX_PLANS = 256  # kept

Columns = Mapping[str, Sequence[Scalar | None]]  # key columns and request values: one value per row
Row = dict[str, OnlineValue]


@dataclass(frozen=True, slots=True)
class RequestValue:
    """A value that the caller gives with each row."""

    name: str
    dtype: ScalarType
    nullable: bool


@dataclass(frozen=True, slots=True)
class OnlineReads:
    """A read as a plain value: what to ask of each entity in one round trip, and what to compute from the answers."""

    names: tuple[str, ...]  # of the answer, in the order they were asked for
    stored: tuple[tuple[Entity, tuple[FeatureOf, ...]], ...]
    derivations: tuple[Derivation, ...]  # each behind those that it needs
    request: tuple[RequestValue, ...]

    @property
    def dtypes(self) -> tuple[ScalarType, ...]:
        """The types of the features, in the order of `names`."""
        found = {one.name: one.feature.dtype for _, features in self.stored for one in features}
        found |= {one.name: TYPES[one.dtype] for what in self.derivations for one in what.expressions}
        return tuple(found[name] for name in self.names)

    @property
    def key_columns(self) -> tuple[str, ...]:
        """What identifies the rows."""
        return tuple(dict.fromkeys(column for entity, _ in self.stored for column in entity.key_columns))

    def read(self, store: OnlineStore, given: Columns, now: datetime) -> list[Row]:
        """One mapping per row of `given`, in order; derived values are computed from what was read.

        Raises:
            TerminalError: a key column or a request value is not given, or one that cannot be computed with.
        """
        return self._rows(store.read_all(self._asked(given), now), given)

    async def read_async(self, store: OnlineStore, given: Columns, now: datetime) -> list[Row]:
        """As `read`, without a thread that waits."""
        return self._rows(await store.read_all_async(self._asked(given), now), given)

    def _asked(self, given: Columns) -> list[Read]:
        _length(given)
        return [Read(entity.name, _entity_ids(entity, given), features) for entity, features in self.stored]

    def _rows(self, answers: list[list[Row]], given: Columns) -> list[Row]:
        if len(answers) == 1 and not self.derivations:
            return answers[0]
        found: list[Row] = [{} for _ in range(_length(given))]
        for answer in answers:
            for row, values in zip(found, answer, strict=True):
                row.update(values)
        for what in self.derivations:
            _add_derived(found, what, given)
        return [{name: row[name] for name in self.names} for row in found]


class ReadPlanner:
    """Plans reads of a project's features; those made are kept, by the identity of the features."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._made: dict[tuple[int, ...], tuple[tuple[FeatureOf | View, ...], OnlineReads]] = {}

    def plan(self, features: Iterable[FeatureOf | View]) -> OnlineReads:
        """Resolve views and derived features.

        Raises:
            DefinitionError: a feature is not online, or two versions of one are asked for.
        """
        asked = tuple(features) if isinstance(features, list | tuple) else asked_for(features)
        found = self._made.get(tuple(map(id, asked)))
        if found is None:
            if len(self._made) >= MAX_PLANS:
                self._made.clear()
            # The features are kept with their plan, so their ids name nothing else as long as it is here.
            found = self._made[tuple(map(id, asked))] = asked, self._plan(asked)
        return found[1]

    def _plan(self, asked: Sequence[FeatureOf | View]) -> OnlineReads:
        wanted = [one for feature in asked_for(asked) for one in self._expanded(feature)]
        needed = _Needed(self._project)
        for one in wanted:
            needed.add(one)
        return OnlineReads(
            names=tuple(dict.fromkeys(one.name for one in wanted)),
            stored=tuple((entity, tuple(features.values())) for entity, features in needed.stored.values()),
            derivations=tuple(needed.derivations.values()),
            request=tuple(needed.request.values()),
        )

    def _expanded(self, feature: FeatureOf | View) -> list[FeatureOf]:
        if isinstance(feature, FeatureView):
            if not feature.online_features:
                raise DefinitionError(
                    f"view {feature.name!r} has no feature that is read online; set online=True on one"
                )
            return [feature[one.name] for one in feature.online_features]
        if isinstance(feature, DerivedView):
            return [feature[one.name] for one in feature.all_features]
        return [feature]


class _Needed:
    """Collects what has to be read and computed for some features."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._version_of: dict[str, int] = {}
        self.stored: dict[str, tuple[Entity, dict[str, FeatureOf]]] = {}
        self.derivations: dict[str, Derivation] = {}
        self.request: dict[str, RequestValue] = {}

    def add(self, wanted: FeatureOf) -> None:
        if self._version_of.setdefault(wanted.name, wanted.version) != wanted.version:
            raise DefinitionError(f"two versions of feature {wanted.name!r} are asked for; read them in two reads")
        view = self._project.view(wanted.view, wanted.version)
        if isinstance(view, DerivedView):
            self._add_derived(view)
            return
        if wanted.feature not in view.online_features:
            raise DefinitionError(
                f"feature {wanted.name!r} of view {view.name!r} is not online; set online=True in its view"
            )
        _, features = self.stored.setdefault(view.entity.name, (view.entity, {}))
        features.setdefault(wanted.name, wanted)

    def _add_derived(self, view: DerivedView) -> None:
        what = derivation(view)
        if what.target in self.derivations:
            return
        for one in what.inputs:
            if one.target:
                name, _, version = one.target.rpartition("@v")
                self.add(self._project.view(name, int(version))[one.name])
        for name, declared in view.request.items():
            dtype, nullable = scalar_of(declared, f"view {view.name!r}")
            before = self.request.setdefault(name, RequestValue(name, dtype, nullable))
            if before.dtype is not dtype:
                raise DefinitionError(
                    f"two views want request value {name!r}, of different types; read them in two reads"
                )
            if not nullable:
                self.request[name] = RequestValue(name, dtype, nullable=False)
        self.derivations[what.target] = what  # behind its inputs


def _add_derived(rows: Sequence[Row], what: Derivation, given: Columns) -> None:
    """Add the view's values to each row. Their event time is that of the newest value that they are made of."""
    times = [_newest(row[one.name] for one in what.inputs if one.target) for row in rows]
    computed = derive(what, [_column(rows, what, one, given) for one in what.inputs])
    for name in computed.column_names:
        for row, value, time in zip(rows, computed[name].to_pylist(), times, strict=True):
            row[name] = OnlineValue(value, Status.NULL if value is None else Status.PRESENT, time)


def _newest(values: Iterable[OnlineValue]) -> datetime | None:
    return max((one.event_timestamp for one in values if one.event_timestamp), default=None)


def _column(rows: Sequence[Row], what: Derivation, wanted: Input, given: Columns) -> pa.Array:
    if wanted.target:
        values: Sequence[Scalar | None] = [row[wanted.name].value for row in rows]
    elif wanted.name in given:
        values = given[wanted.name]
    else:
        raise TerminalError(f"view {what.target} needs request value {wanted.name!r}, which is not given")
    try:
        return pa.array(values, arrow_type(TYPES[wanted.dtype]))
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise TerminalError(
            f"view {what.target}: {wanted.name!r} is not a column of {wanted.dtype}: {error}"
        ) from error


def _entity_ids(entity: Entity, given: Columns) -> list[str]:
    columns = entity.key_columns
    missing = [column for column in columns if column not in given]
    if missing:
        raise TerminalError(
            f"entity {entity.name!r} is identified by {', '.join(columns)}; {missing[0]!r} is not given"
        )
    if len(columns) == 1:
        return [entity_id((value,)) for value in given[columns[0]]]
    return [entity_id(values) for values in zip(*(given[column] for column in columns), strict=True)]


def _length(given: Columns) -> int:
    if not isinstance(given, Mapping):
        raise TerminalError(f"the keys are {shown(given)}; give columns, e.g. {{'user_id': [1, 2]}}")
    for name, values in given.items():
        if type(values) in TYPES.values():  # a text too, which is not its letters
            raise TerminalError(f"column {name!r} is {values!r}; give a list, one value per row")
    lengths = {len(values) for values in given.values()}
    if len(lengths) != 1:
        raise TerminalError(f"columns of different lengths: { {name: len(v) for name, v in given.items()} }")
    return lengths.pop()
