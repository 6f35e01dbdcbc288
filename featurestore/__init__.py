"""Features as code: what a definitions file and a reader need. Importing it costs the standard library only."""

from featurestore.definitions.entity import Entity
from featurestore.definitions.feature import Aggregation, Feature
from featurestore.definitions.model import Model
from featurestore.definitions.project import Project
from featurestore.definitions.source import AssetSource, KafkaSource, UploadSource
from featurestore.definitions.view import DerivedView, Expectation, FeatureView
from featurestore.errors import DefinitionError, FeatureStoreError, TerminalError, TransientError

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
    "TerminalError",
    "TransientError",
    "UploadSource",
]
