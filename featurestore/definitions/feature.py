"""What a view says about its entity: the newest value of a row, or an aggregation over a window."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Literal, get_args

from featurestore.definitions.dtypes import ScalarType, check_scalar
from featurestore.definitions.durations import duration
from featurestore.definitions.listed import listed
from featurestore.definitions.names import check_name
from featurestore.errors import DefinitionError

Function = Literal["count", "sum", "mean", "min", "max", "first", "last"]
SHORTEST_WINDOW = timedelta(seconds=24)


@dataclass(frozen=True, slots=True)
class Feature:
    """The value of `sql` in the newest row; without `sql`, of the column with the feature's name."""

    name: str
    dtype: ScalarType
    sql: str = ""
    _: KW_ONLY
    online: bool = False
    max_age: str | None = None
    description: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "feature")
        check_scalar(self.dtype, f"feature {self.name!r}")
        if self.max_age is not None:
            duration(self.max_age, f"feature {self.name!r}, max_age")

    @property
    def expression(self) -> str:
        return self.sql or self.name

    @property
    def input_dtype(self) -> ScalarType:
        return self.dtype

    @property
    def longest_age(self) -> timedelta | None:
        """`max_age` as a duration; a value of exactly this age is fresh."""
        return None if self.max_age is None else duration(self.max_age, f"feature {self.name!r}, max_age")


@dataclass(frozen=True, slots=True)
class Aggregation:
    """`function` over the rows of each window; makes one feature per window, `<name>_<window>`."""

    name: str
    function: Function
    sql: str = "1"
    _: KW_ONLY
    windows: Sequence[str]
    where: str = "true"
    dtype: ScalarType = float
    online: bool = False
    description: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "aggregation")
        check_scalar(self.dtype, f"aggregation {self.name!r}")
        if self.function not in get_args(Function):
            raise DefinitionError(
                f"aggregation {self.name!r}: {self.function!r} is not one of {', '.join(get_args(Function))}"
            )
        if self.sql == "1" and self.function != "count":
            raise DefinitionError(f"aggregation {self.name!r}: {self.function} of what? give a column or an expression")
        where = f"aggregation {self.name!r}, windows"
        object.__setattr__(self, "windows", listed(self.windows, str, where, "durations, e.g. ('1h', '7d')"))
        if not self.windows:
            raise DefinitionError(f"aggregation {self.name!r} has no windows; give at least one, e.g. ('1h',)")
        for window in self.windows:
            if duration(window, where) < SHORTEST_WINDOW:
                raise DefinitionError(f"aggregation {self.name!r}: window {window!r} is shorter than 24s")

    @property
    def expression(self) -> str:
        """The input of the fold, as it is logged; NULL where `where` does not hold, which every fold skips."""
        if self.function == "count":  # a count needs only to know that there was something to count
            return f"CASE WHEN ({self.where}) AND ({self.sql}) IS NOT NULL THEN true END"
        return f"CASE WHEN ({self.where}) THEN ({self.sql}) END"

    @property
    def input_dtype(self) -> ScalarType:
        return bool if self.function == "count" else self.dtype

    @property
    def features(self) -> tuple[Feature, ...]:
        """One feature per window."""
        dtype: ScalarType = {"count": int, "mean": float}.get(self.function, self.dtype)
        return tuple(
            Feature(f"{self.name}_{window}", dtype, online=self.online, description=self.description)
            for window in self.windows
        )
