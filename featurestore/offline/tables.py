"""A view's place in the log: its table, and the job that makes every table of a project.

The code stands in `database.tables`, because the database service registers the declared views at its start.
"""

from featurestore.database.jobs import ViewTable
from featurestore.database.tables import MODEL_METADATA, schema_job, view_table
from featurestore.definitions.view import FeatureView

__all__ = ["MODEL_METADATA", "log_relation", "schema_job", "view_table"]


def log_relation(view: FeatureView | ViewTable) -> str:
    """The log table of a view's version, as SQL names it."""
    return f'log."{view.name if isinstance(view, FeatureView) else view.view}_v{view.version}"'
