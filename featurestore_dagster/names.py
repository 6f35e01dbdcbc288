"""Names in Dagster: asset keys, groups, tags, pools."""

import re
from dataclasses import dataclass

import dagster as dg

SOURCES, RAW, FEATURES, LAKE, ONLINE, MODELS = "sources", "raw", "features", "lake", "online", "models"  # groups
TRAINING_SETS = "training_sets"

LANDED_SENSOR = "landed_batches"
EXPECTATIONS = "expectations"  # the check of a view that its own step makes

TRANSFORM_POOL = "transform"  # steps that compute and write feature rows
DATABASE_POOL = "database"  # steps that read the whole log
LANE_TAG = "featurestore/lane"  # [<namespace>.]<source>.<number>; dagster.yaml allows one live run for each value


@dataclass(frozen=True, slots=True)
class Keys:
    """Asset keys and other names, inside a namespace if there is one: several projects can share a code location."""

    namespace: str = ""

    def name(self, name: str) -> str:
        """Of a job, sensor, schedule, op or resource."""
        return re.sub(r"\W", "_", f"{self.namespace}_{name}") if self.namespace else name

    def resources(self, *names: str) -> set[str]:
        """The keys of resources, see resources.py."""
        return {self.name(name) for name in names}

    def lane_tag(self, lane: str) -> str:
        """What a run that holds a lane carries."""
        return f"{self.namespace}.{lane}" if self.namespace else lane

    def lane_of(self, tag: str) -> str:
        """The lane of this project that a run holds; '' if it is another project's, or none."""
        lane = tag.removeprefix(self.lane_tag(""))
        return lane if self.lane_tag(lane) == tag and lane.count(".") == 1 else ""

    def source(self, name: str) -> dg.AssetKey:
        return self._key("source", name)

    def raw(self, source: str) -> dg.AssetKey:
        return self._key("raw", source)

    def landing(self, source: str) -> dg.AssetKey:
        return self._key("landing", source)

    def features(self, view: str) -> dg.AssetKey:
        return self._key("features", view)

    def lake(self, view: str) -> dg.AssetKey:
        return self._key("lake", view)

    def erasures(self) -> dg.AssetKey:
        return self._key("erasures")

    def online(self, view: str) -> dg.AssetKey:
        return self._key("online", view)

    def training_set(self, name: str) -> dg.AssetKey:
        return self._key("training_sets", name)

    def models(self, name: str) -> dg.AssetKey:
        return self._key("models", name)

    def trained_on(self, model_id: str) -> dg.AssetKey:
        return self._key("models", model_id, "trained_on")

    def _key(self, *parts: str) -> dg.AssetKey:
        return dg.AssetKey([self.namespace, *parts] if self.namespace else list(parts))


PLAIN = Keys()
