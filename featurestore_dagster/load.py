"""What is checked when a code location is loaded: nothing connects."""

import gc
from collections.abc import Generator
from contextlib import contextmanager

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


@contextmanager
def collecting_later() -> Generator[None]:
    """No garbage collection meanwhile: definitions stay, and looking through them over and over takes a quarter of the
    time that they need to load."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
