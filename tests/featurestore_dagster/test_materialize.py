"""`materialize()` in pytest: every asset of the code location, on memory alone."""

from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any, cast

import dagster as dg
import pytest

from featurestore.models.example import MODEL_ID, example
from featurestore.settings import Settings
from featurestore_dagster.assets.online import ENTITY_PIECES
from featurestore_dagster.build import build_definitions
from featurestore_dagster.features.project import PROJECT
from featurestore_dagster.features.user import PROFILES, USER_EVENTS
from featurestore_dagster.names import PLAIN
from featurestore_dagster.partitions import LANDING_HOUR, key_of, model_partitions
from featurestore_dagster.testing import land, memory_resources

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
DEFINITIONS = build_definitions(PROJECT, Settings())
GRAPH = DEFINITIONS.resolve_asset_graph()


class Location:
    """The code location, an instance, and memory where its services would be."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.resources = memory_resources()
        self.instance = instance
        profile = {"user_id": 1, "as_of": NOW, "income": 2.0, "debt": 1.0, "age_years": 30}
        click = {"user_id": 1, "timestamp": NOW, "action": "click", "amount": 0.5}
        land(self.resources, PROFILES, [profile], created_at=NOW)
        land(self.resources, USER_EVENTS, [click], created_at=NOW)
        self.resources["blobs"].push(*example())
        self.resources["blobs"].promote(MODEL_ID, "1", actor="anna", now=NOW)
        instance.add_dynamic_partitions("models", [MODEL_ID])

    def materialize(self, *keys: dg.AssetKey) -> dg.ExecuteInProcessResult:
        [partitions] = {GRAPH.get(key).partitions_def for key in keys}
        partition = {None: None, LANDING_HOUR: key_of(NOW), ENTITY_PIECES: "00", model_partitions(): MODEL_ID}
        return dg.materialize(
            cast(Any, DEFINITIONS.assets),
            selection=list(keys),
            partition_key=partition[partitions],
            resources=self.resources,
            instance=self.instance,
        )


@pytest.fixture(scope="module")
def location() -> Generator[Location]:
    """With what others stand on: the hour's features in the log and online, the model's metadata in the log."""
    with dg.DagsterInstance.ephemeral() as instance:
        location = Location(instance)
        hourly = [key for key in GRAPH.materializable_asset_keys if GRAPH.get(key).partitions_def == LANDING_HOUR]
        assert location.materialize(*hourly).success
        assert location.materialize(PLAIN.models("metadata")).success
        yield location


@pytest.mark.parametrize("key", sorted(GRAPH.materializable_asset_keys), ids=dg.AssetKey.to_user_string)
def test_every_asset_of_the_example_project(location: Location, key: dg.AssetKey) -> None:
    result = location.materialize(key)
    assert result.success
    assert key in {event.asset_key for event in result.get_asset_materialization_events()}
    assert [check.description for check in result.get_asset_check_evaluations() if not check.passed] == []
