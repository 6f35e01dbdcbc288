"""A code location for a real Dagster: two streams, an asset of somebody else's, and a transform that can be held."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pyarrow as pa

from featurestore.definitions.entity import Entity
from featurestore.definitions.feature import Feature
from featurestore.definitions.project import Project
from featurestore.definitions.source import AssetSource, KafkaSource
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
ORDERS = AssetSource("orders", asset_key="warehouse/orders", timestamp="at", schema={"user_id": int, "price": float})
LAST_ORDER = FeatureView("last_order", USER, ORDERS, [Feature("last_price", float, "price", online=True)])
PROJECT = Project((LAST_CLICK, LAST_SEARCH, LAST_ORDER))


@dg.asset(key=["warehouse", "orders"])
def orders() -> pa.Table:
    return pa.table({"user_id": [1, 2], "at": [datetime.now(UTC)] * 2, "price": [5.0, 7.5]})


defs = dg.Definitions.merge(
    build_definitions(PROJECT, Settings.from_env(os.environ)),  # noqa: TID251  # an entry point
    dg.Definitions(assets=[orders]),
)
