"""Python types of the definitions and their names in DuckDB and Arrow."""

from collections.abc import Mapping
from types import UnionType
from typing import TYPE_CHECKING, get_args

from featurestore.errors import DefinitionError

if TYPE_CHECKING:
    import pyarrow as pa

ScalarType = type[str] | type[int] | type[float] | type[bool]
SchemaType = Mapping[str, type | UnionType]

DUCKDB: Mapping[ScalarType, str] = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN"}


def scalar_of(declared: type | UnionType, where: str) -> tuple[ScalarType, bool]:
    """Return (type, nullable) of `float` or `float | None`."""
    members = set(get_args(declared)) or {declared}
    nullable = type(None) in members
    scalars = members - {type(None)}
    if len(scalars) != 1 or (scalar := scalars.pop()) not in DUCKDB:
        raise DefinitionError(f"{where}: {declared!r} is not one of str, int, float, bool (or `… | None`)")
    return scalar, nullable


def check_scalar(dtype: ScalarType, where: str) -> None:
    """Of a feature, which may always be missing: a type that is no union."""
    if dtype not in DUCKDB:
        raise DefinitionError(f"{where}: {dtype!r} is not one of str, int, float, bool")


def arrow_type(dtype: ScalarType) -> "pa.DataType":
    """The Arrow type of a column of `dtype`."""
    import pyarrow as pa  # here, because definitions import the standard library only

    return {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}[dtype]
