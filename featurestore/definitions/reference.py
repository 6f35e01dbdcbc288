"""`VIEW["feature"]`: what models pin and readers ask for."""

from dataclasses import dataclass, field

from featurestore.definitions.feature import Feature
from featurestore.definitions.rings import RingWindow


@dataclass(frozen=True, slots=True)
class FeatureOf:
    """A feature of one version of a view."""

    view: str
    version: int
    feature: Feature
    window: RingWindow | None = field(default=None, compare=False, repr=False)  # where it is read, if it is one

    @property
    def name(self) -> str:
        return self.feature.name
