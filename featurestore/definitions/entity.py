"""What features describe."""

from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.definitions.names import check_name
from featurestore.errors import DefinitionError


@dataclass(frozen=True, slots=True)
class Entity:
    """A thing with features; `key` is the column (or columns) that identifies it in sources and spines."""

    name: str
    key: str | Sequence[str]
    description: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "entity")
        if not isinstance(self.key, str):
            object.__setattr__(self, "key", tuple(self.key))
        if not self.key_columns:
            raise DefinitionError(f"entity {self.name!r} has no key; name the column that identifies it")
        for column in self.key_columns:
            check_name(column, "entity key")

    @property
    def key_columns(self) -> tuple[str, ...]:
        return (self.key,) if isinstance(self.key, str) else tuple(self.key)
