"""Features as code: what a definitions file and a reader need. Importing it costs the standard library only."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from featurestore.definitions.entity import Entity
from featurestore.definitions.feature import Aggregation, Feature
from featurestore.definitions.model import Model
from featurestore.definitions.project import Project
from featurestore.definitions.query import Query
from featurestore.definitions.source import AssetSource, KafkaSource, UploadSource
from featurestore.definitions.view import DerivedView, Expectation, FeatureView
from featurestore.errors import DefinitionError, FeatureStoreError, TerminalError, TransientError

if TYPE_CHECKING:
    from featurestore.store import Store

__all__ = [
    "Aggregation",
    "AssetSource",
    "DefinitionError",
    "DerivedView",
    "Entity",
    "Expectation",
    "Feature",
    "FeatureStoreError",
    "FeatureView",
    "KafkaSource",
    "Model",
    "Project",
    "Query",
    "TerminalError",
    "TransientError",
    "UploadSource",
    "connect",
]


def connect(project: Project) -> "AbstractContextManager[Store]":
    """Open the store of the running platform, found through FEATURESTORE_*; it is closed on every path."""
    from featurestore.store import connect as open_store  # here: definitions must not pay for what reading needs

    return open_store(project)
