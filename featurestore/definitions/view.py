"""Feature views: rows of one source made into features of one entity; and features derived from features."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from featurestore.definitions.dtypes import ScalarType, SchemaType, scalar_of
from featurestore.definitions.durations import duration
from featurestore.definitions.entity import Entity
from featurestore.definitions.feature import Aggregation, Feature
from featurestore.definitions.fingerprint import fingerprint, names
from featurestore.definitions.listed import listed, shown
from featurestore.definitions.names import check_name, check_unique
from featurestore.definitions.place import caller
from featurestore.definitions.reference import FeatureOf
from featurestore.definitions.rings import Ring, RingWindow, ring_windows
from featurestore.definitions.source import Source
from featurestore.errors import DefinitionError, UnknownFeatureError

if TYPE_CHECKING:
    import pyarrow as pa

    RowTransform = Callable[[pa.Table], pa.Table]


@dataclass(frozen=True, slots=True)
class Expectation:
    """A SQL condition every row should meet; like CHECK, it fails on false and passes on NULL."""

    sql: str
    on_fail: Literal["quarantine", "warn"] = "quarantine"

    def __post_init__(self) -> None:
        if self.on_fail not in {"quarantine", "warn"}:
            raise DefinitionError(f"expectation {self.sql!r}: on_fail {self.on_fail!r} is not quarantine or warn")


@dataclass(frozen=True, slots=True)
class Column:
    """A typed column of the log: a row feature's value, or the input of an aggregation."""

    name: str
    dtype: ScalarType
    sql: str


def _no_features() -> Sequence[Feature | Aggregation]:
    return ()


@dataclass(frozen=True)
class FeatureView:
    """Features of one entity from the rows of one source; one row in, at most one row out."""

    name: str
    entity: Entity
    source: Source
    features: Sequence[Feature | Aggregation] = field(default_factory=_no_features)
    _: KW_ONLY
    where: str = "true"
    transform: "RowTransform | None" = None
    expect: Sequence[Expectation] = ()
    version: int = 1
    keep: str = ""  # how long rows stay in the log after they landed ("400d"); by default for ever
    owner: str = ""
    description: str = ""
    declared_at: str = field(default_factory=caller, init=False, repr=False, compare=False)  # file:line

    def __post_init__(self) -> None:
        where = f"view {self.name!r}"
        if self.keep:
            duration(self.keep, f"{where}, keep")
        check_name(self.name, "view")
        parts: dict[type, object] = {Entity: self.entity, Source: self.source}
        for kind, value in parts.items():
            if not isinstance(value, kind):
                raise DefinitionError(f"{where}: {shown(value)} is no {kind.__name__}; give name, entity, source")
        features = listed(self.features, Feature | Aggregation, f"{where}, features", "fs.Feature and fs.Aggregation")
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "expect", listed(self.expect, Expectation, f"{where}, expect", "fs.Expectation"))
        if type(self.version) is not int or self.version < 1:
            raise DefinitionError(f"{where}: version {self.version!r} is not a whole number from 1")
        if not self.features:
            raise DefinitionError(f"{where} has no features; give at least one")
        self._check_keys(where)
        check_unique("feature", (feature.name for feature in self.all_features), where)
        check_unique("log column", (column.name for column in self.columns), where)

    def _check_keys(self, where: str) -> None:
        for column in self.entity.key_columns:
            if column not in self.source.schema:
                raise DefinitionError(
                    f"{where}: source {self.source.name!r} has no column {column!r}, "
                    f"the key of entity {self.entity.name!r}; it has {', '.join(self.source.schema)}"
                )
            if self.source.columns[column].dtype not in {str, int}:
                raise DefinitionError(f"{where}: key column {column!r} is neither str nor int")

    @property
    def target(self) -> str:
        """This version of this view, as the ledger and the queues name it."""
        return f"{self.name}@v{self.version}"

    @cached_property
    def all_features(self) -> tuple[Feature, ...]:
        """Every feature by its final name, aggregations expanded."""
        return tuple(f for d in self.features for f in (d.features if isinstance(d, Aggregation) else (d,)))

    @cached_property
    def row_features(self) -> tuple[Feature, ...]:
        """The features that are the newest row's value."""
        return tuple(feature for feature in self.features if isinstance(feature, Feature))

    @cached_property
    def online_features(self) -> tuple[Feature, ...]:
        """The features that are read online."""
        return tuple(feature for feature in self.all_features if feature.online)

    @cached_property
    def online_row_features(self) -> tuple[Feature, ...]:
        """Those of them that are the newest row's value."""
        return tuple(feature for feature in self.row_features if feature.online)

    @cached_property
    def windows(self) -> Mapping[str, RingWindow]:
        """Those of them that are windows, by name: where they are read."""
        return ring_windows(one for one in self.features if isinstance(one, Aggregation) and one.online)

    @cached_property
    def rings(self) -> tuple[Ring, ...]:
        """What the online store keeps of the windows."""
        return tuple(dict.fromkeys(window.ring for window in self.windows.values()))

    def column_of(self, feature: str) -> str:
        """The column of the log that a feature is made of."""
        windows = {one.name: d.name for d in self.features if isinstance(d, Aggregation) for one in d.features}
        return windows.get(feature, feature)

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The typed columns of this version's log."""
        return tuple(Column(one.name, one.input_dtype, one.expression) for one in self.features)

    @cached_property
    def digest(self) -> str:
        """Of what changes the view's rows: features, inputs, where, transform, quarantine, key and source."""
        quarantine = [one.sql for one in self.expect if one.on_fail == "quarantine"]
        features = [(column.name, column.dtype.__name__, column.sql) for column in self.columns]
        reads = (self.entity.key_columns, features, self.where, quarantine, self.transform)
        # An optional column that nothing here names changes no row: a source may get one while its views stay.
        used = [c.name for c in self.source.columns.values() if not c.nullable or names(c.name, reads)]
        return fingerprint(self.source.name, self.source.timestamp, self.source.version_of(used), reads)

    def __getitem__(self, name: str) -> FeatureOf:
        feature = _named(self.all_features, name, f"view {self.name!r}")
        return FeatureOf(self.name, self.version, feature, self.windows.get(name))


@dataclass(frozen=True)
class DerivedView:
    """Features computed from other features (and request values) when they are read; never stored."""

    name: str
    inputs: "Sequence[FeatureOf | FeatureView | DerivedView]"
    features: Sequence[Feature]
    _: KW_ONLY
    version: int = 1
    request: SchemaType = field(default_factory=dict[str, type], hash=False)
    owner: str = ""
    description: str = ""
    declared_at: str = field(default_factory=caller, init=False, repr=False, compare=False)  # file:line

    def __post_init__(self) -> None:
        check_name(self.name, "view")
        for name, declared in self.request.items():
            scalar_of(declared, f"view {self.name!r}, request value {name!r}")
        where = f"view {self.name!r}"
        inputs = listed(self.inputs, _Asked, f"{where}, inputs", "VIEW['feature'] and whole views")
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "features", listed(self.features, Feature, f"{where}, features", "fs.Feature"))
        if not self.features:
            raise DefinitionError(f"{where} has no features; give at least one")
        if not self.inputs and not self.request:
            raise DefinitionError(f"{where} has neither inputs nor request values; give what it computes with")
        check_unique("feature", (feature.name for feature in self.features), where)

    @property
    def all_features(self) -> tuple[Feature, ...]:
        return tuple(self.features)

    def __getitem__(self, name: str) -> FeatureOf:
        return FeatureOf(self.name, self.version, _named(self.all_features, name, f"view {self.name!r}"))


View = FeatureView | DerivedView
_Asked = FeatureOf | FeatureView | DerivedView


def asked_for(features: object) -> tuple[FeatureOf | View, ...]:
    """What a reader asks for.

    Raises:
        DefinitionError: it is no list, or one of it is neither a feature nor a view, but a name, say.
    """
    wanted = "VIEW['feature'], whole views, MODEL.expected_features; store.find('name') finds by name"
    return listed(features, _Asked, "the features asked for", wanted)


def _named(features: Sequence[Feature], name: str, where: str) -> Feature:
    by_name = {feature.name: feature for feature in features}
    if name not in by_name:
        raise UnknownFeatureError(name, where, get_close_matches(name, by_name, n=1))
    return by_name[name]
