"""A question that services may ask by its name."""

from dataclasses import KW_ONLY, dataclass

from featurestore.definitions.names import check_name
from featurestore.errors import DefinitionError


@dataclass(frozen=True, slots=True)
class Query:
    """One SELECT with $named parameters. Who asks gives values, never SQL."""

    name: str
    sql: str
    _: KW_ONLY
    owner: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "query")
        if not self.sql.strip():
            raise DefinitionError(f"query {self.name!r} has no SQL")
