"""What the log has of each view version, as the database service last noted it: known without a connection."""

import json
from collections.abc import Mapping
from pathlib import Path

from featurestore.definitions.project import Project
from featurestore.definitions.view import FeatureView
from featurestore.errors import DefinitionError

Registered = Mapping[str, str]  # target → digest; empty for a version that was dropped


def write_registered(file: Path, registered: Registered) -> None:
    """Replace the note in one step."""
    part = file.with_name(f"{file.name}.part")
    part.write_text(json.dumps(registered, indent=1))
    part.replace(file)


def read_registered(file: Path) -> Registered:
    """The note; nothing where the service has not run."""
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        return {}


def check_registered(project: Project, registered: Registered) -> None:
    """Refuse views that would change the meaning of rows that are logged.

    Raises:
        DefinitionError: a version was changed and kept its number, or has the number of one that was dropped.
    """
    for view in project.feature_views:
        reason = refusal(view, registered)
        if reason:
            raise DefinitionError(f"view {view.name!r}: {reason} ({view.declared_at})")


def refusal(view: FeatureView, registered: Registered) -> str:
    """Why the log would refuse the view, and what to do; empty if it would not."""
    digest = registered.get(view.target, view.digest)
    if digest == view.digest:
        return ""
    newest = max(int(target.rpartition("@v")[2]) for target in registered if target.startswith(f"{view.name}@v"))
    if not digest:
        return f"version {view.version} was dropped; give it version={newest + 1}"
    return (
        f"what makes its rows was changed, and its version is still {view.version}; "
        f"give it version={newest + 1}, or take the change back"
    )
