"""A view's table in the log, and the job that makes every table of a project.

The code stands in `database.tables`, because the database service registers the declared views at its start.
"""

from featurestore.database.tables import MODEL_METADATA, schema_job, view_table

__all__ = ["MODEL_METADATA", "schema_job", "view_table"]
