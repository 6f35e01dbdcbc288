"""How SQL names the log of a view's version."""

from typing import TYPE_CHECKING

from featurestore.definitions.names import check_name
from featurestore.definitions.view import FeatureView

if TYPE_CHECKING:
    from featurestore.database.jobs import ViewTable


def log_relation(view: "FeatureView | ViewTable | str") -> str:
    """The log of a view's version (or target), as SQL names it: all its rows."""
    return f'log."{log_name(view)}"'


def hot_relation(target: str) -> str:
    """Those of its rows that have not moved to the lake."""
    return f'hot."{log_name(target)}"'


def log_name(view: "FeatureView | ViewTable | str") -> str:
    """Raises DefinitionError for a text that is no target: a receipt's becomes SQL here."""
    name, _, version = (view if isinstance(view, str) else view.target).partition("@v")
    check_name(name, "view")
    return f"{name}_v{int(version)}"
