"""A code location for a real Dagster: two sources, and a transform that can be held."""

import os
import time
from pathlib import Path

import pyarrow as pa

from featurestore.definitions.entity import Entity
from featurestore.definitions.feature import Feature
from featurestore.definitions.project import Project
from featurestore.definitions.source import KafkaSource
from featurestore.definitions.view import FeatureView
from featurestore.settings import Settings
from featurestore_dagster.build import build_definitions

HERE = Path(__file__).parent


def held(rows: pa.Table) -> pa.Table:
    """As it comes, when nobody holds it; without rows it is only being tried, while the code is loaded."""
    while rows.num_rows and (HERE / "hold").exists():
        time.sleep(0.02)  # noqa: TID251  # a transform that takes its time
    return rows


USER = Entity("user", key="user_id")
CLICKS = KafkaSource("clicks", timestamp="at", schema={"user_id": int, "page": str})
SEARCHES = KafkaSource("searches", timestamp="at", schema={"user_id": int, "words": str})
LAST_CLICK = FeatureView("last_click", USER, CLICKS, [Feature("page", str, online=True)], transform=held)
LAST_SEARCH = FeatureView("last_search", USER, SEARCHES, [Feature("words", str, online=True)], transform=held)
PROJECT = Project((LAST_CLICK, LAST_SEARCH))

defs = build_definitions(PROJECT, Settings.from_env(os.environ))  # noqa: TID251  # an entry point
