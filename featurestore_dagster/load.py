"""What is checked when a code location is loaded: nothing connects."""

from featurestore.definitions.project import Project
from featurestore.definitions.registered import check_registered, read_registered
from featurestore.settings import Settings
from featurestore.transform.binding import bind


def checked(project: Project, settings: Settings) -> Project:
    """The project, if its SQL fits its sources and no view was changed without a new version.

    Raises:
        DefinitionError: naming view, expression and column, or the version to give.
    """
    bind(project)
    check_registered(project, read_registered(settings.registered_file))
    return project
