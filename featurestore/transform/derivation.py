"""A derived view as a plain value: what is computed, of what; by whom does not matter."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from featurestore.definitions.dtypes import DUCKDB, ScalarType, scalar_of
from featurestore.definitions.view import DerivedView, FeatureView
from featurestore.errors import DefinitionError

TYPES: Mapping[str, ScalarType] = {dtype.__name__: dtype for dtype in DUCKDB}


@dataclass(frozen=True, slots=True)
class Input:
    """A value that a derived view computes with: a feature, or a value of the request (`target` is empty)."""

    name: str
    dtype: str  # str, int, float or bool
    target: str = ""  # <view>@v<version>


@dataclass(frozen=True, slots=True)
class Expression:
    """One derived feature."""

    name: str
    dtype: str
    sql: str

    @property
    def column(self) -> str:
        return f'CAST(({self.sql}) AS {DUCKDB[TYPES[self.dtype]]}) AS "{self.name}"'


@dataclass(frozen=True, slots=True)
class Derivation:
    """A derived view as a plain value: all it takes to compute it, today and from a receipt."""

    target: str
    inputs: tuple[Input, ...]
    expressions: tuple[Expression, ...]

    @property
    def sql(self) -> str:
        """One row per row of `inputs`, in order."""
        return f"SELECT {', '.join(one.column for one in self.expressions)} FROM inputs"


@cache
def derivation(view: DerivedView) -> Derivation:
    """Compile a derived view.

    Raises:
        DefinitionError: two inputs have the same name.
    """
    where = f"view {view.name!r}"
    inputs = [Input(name, scalar_of(declared, where)[0].__name__) for name, declared in view.request.items()]
    for given in view.inputs:
        if isinstance(given, FeatureView | DerivedView):
            target = f"{given.name}@v{given.version}"
            inputs += [Input(one.name, one.dtype.__name__, target) for one in given.all_features]
        else:
            inputs.append(Input(given.name, given.feature.dtype.__name__, f"{given.view}@v{given.version}"))
    names = [one.name for one in inputs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise DefinitionError(f"{where}: two inputs are called {twice!r}")
    return Derivation(
        f"{view.name}@v{view.version}",
        tuple(inputs),
        tuple(Expression(one.name, one.dtype.__name__, one.expression) for one in view.features),
    )
