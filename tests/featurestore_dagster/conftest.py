"""A small project on the memory resources, and an instance of Dagster's."""

from collections.abc import Generator
from pathlib import Path

import dagster as dg
import pytest

from featurestore_dagster.testing import MemoryResources, memory_resources
from tests.featurestore_dagster.platform import Platform


@pytest.fixture
def resources(tmp_path: Path) -> MemoryResources:
    return memory_resources(tmp_path)


@pytest.fixture
def instance() -> Generator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def platform(resources: MemoryResources, instance: dg.DagsterInstance) -> Generator[Platform]:
    with dg.build_resources({"database": resources["database"]}):  # stays open: opening it takes most of a tick
        yield Platform(resources, instance)
