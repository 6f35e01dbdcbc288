"""A small project of your own: features, a green test, what Dagster loads."""

import argparse
import re
from importlib.util import find_spec
from pathlib import Path
from string import Template

from featurestore.errors import TerminalError
from featurestore.settings import Settings
from featurestore_cli.output import say

TEMPLATE = Path(__file__).parents[1] / "template"
SUFFIX = ".txt"  # so that no tool takes the templates for code


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR", help="where; its name becomes that of the package")


def run(args: argparse.Namespace, settings: Settings) -> int:
    directory: Path = args.directory
    name = directory.absolute().name
    package = _package(name)
    if directory.exists() and any(directory.iterdir()):
        raise TerminalError(f"{directory} is not empty; name a directory that is, or does not exist yet")
    for file in sorted(TEMPLATE.rglob(f"*{SUFFIX}")):
        path = directory / _place(file, package)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(Template(file.read_text()).substitute(name=name, package=package))
    say(f"{directory} is a project now. Its features stand in {directory / package / 'user.py'}. Go on with\n")
    say(f"  cd {directory}")
    say("  python -m pytest                                    # its test")
    say("  featurestore up -d                                  # the platform")
    say("  featurestore upload profiles.csv --source profiles  # some rows")
    say("  featurestore get user 1                             # a feature, online\n")
    say("and after a change of the features with `featurestore plan` and `featurestore apply`.")
    return 0


def _place(file: Path, package: str) -> Path:
    """Where a template goes, below the project's directory."""
    parts = list(file.relative_to(TEMPLATE).parts)
    parts[-1] = parts[-1].removesuffix(SUFFIX)
    renamed = {"package": package, "gitignore": ".gitignore"}
    return Path(*(renamed.get(part, part) for part in parts))


def _package(name: str) -> str:
    """The directory's name as that of a Python package."""
    package = re.sub(r"\W+", "_", name.lower()).strip("_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", package):
        raise TerminalError(f"{name!r} cannot be the name of a Python package; begin it with a letter")
    if find_spec(package) is not None:
        raise TerminalError(f"there is a Python package {package!r} already; choose another name for the directory")
    return package
