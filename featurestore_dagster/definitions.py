"""The code location of this repository's project; what it is made of stands in build.py."""

import os

from featurestore.settings import Settings
from featurestore_dagster.build import build_definitions
from featurestore_dagster.features.project import PROJECT

defs = build_definitions(PROJECT, Settings.from_env(os.environ))  # noqa: TID251  # an entry point
