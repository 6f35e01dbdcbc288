"""Lists in declarations and reads: what may stand in them."""

from collections.abc import Iterable
from types import UnionType
from typing import Any, cast

from featurestore.errors import DefinitionError


def listed(values: object, kind: type | UnionType, where: str, wanted: str) -> tuple[Any, ...]:
    """`values` as a tuple of `kind`.

    Raises:
        DefinitionError: it is no list, or one of it is something else; `wanted` says what should stand there.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise DefinitionError(f"{where}: {shown(values)} is not a list; give a list of {wanted}")
    found = tuple(cast(Iterable[Any], values))
    for one in found:
        if not isinstance(one, kind):
            raise DefinitionError(f"{where}: {shown(one)} is none of {wanted}")
    return found


def shown(value: object) -> str:
    """A value in a message: what is short as it is, of anything else its type."""
    return repr(value) if isinstance(value, str | int | float | None) else f"{type(value).__name__}(…)"
