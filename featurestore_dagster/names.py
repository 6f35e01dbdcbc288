"""Names in Dagster: asset keys, groups, tags, pools."""

from dataclasses import dataclass

import dagster as dg

SOURCES, RAW, FEATURES, LAKE, ONLINE, MODELS = "sources", "raw", "features", "lake", "online", "models"  # groups
TRAINING_SETS = "training_sets"

LANDED_SENSOR = "landed_batches"

TRANSFORM_POOL = "transform"  # steps that compute and write feature rows
DATABASE_POOL = "database"  # steps that read the whole log
LANE_TAG = "featurestore/lane"  # <source>.<number>; dagster.yaml allows one live run for each value


@dataclass(frozen=True, slots=True)
class Keys:
    """Asset keys, inside a namespace if there is one."""

    namespace: str = ""

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
