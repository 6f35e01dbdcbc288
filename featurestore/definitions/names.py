"""Names of declared things: what may be a name, and what was probably meant."""

import re
from collections.abc import Iterable

from featurestore.errors import DefinitionError

# Columns that the platform adds to landed rows, to the log and to the relation `features`.
RESERVED = frozenset(
    {"entity_id", "event_timestamp", "created_at", "sequence", "tie", "commit_seq", "feature_name", "line"}
)


def check_name(name: str, kind: str) -> None:
    """Names become SQL columns, Redis fields and metric labels: lower snake case, at most 63, not a log column's."""
    if name in RESERVED:
        raise DefinitionError(f"{kind} {name!r}: the name is taken by a column of the log; choose another")
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", str(name)):
        raise DefinitionError(f"{kind} {name!r}: a name is lower_snake_case, at most 63 characters")


def check_unique(kind: str, names: Iterable[str], where: str = "the project") -> None:
    """No name twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DefinitionError(f"{where} declares {kind} {name!r} twice")
        seen.add(name)
