"""Dagster's own instance, with its events in one SQLite file; sensors and backfills are looked at more often.

Stock Dagster writes a SQLite file per run, which takes three times the space and cannot be bounded without deleting
files. The stock way to say so in dagster.yaml needs an absolute directory; this class puts the files below wherever
Dagster's home is: DAGSTER_HOME, or the temporary one of a plain `dagster dev`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster._core.instance.ref import InstanceRef
from dagster._serdes import ConfigurableClassData

_STORAGES = {
    "run_storage": ("dagster._core.storage.runs", "SqliteRunStorage"),
    "event_log_storage": ("dagster._core.storage.event_log", "ConsolidatedSqliteEventLogStorage"),
    "schedule_storage": ("dagster._core.storage.schedules", "SqliteScheduleStorage"),
}

SENSOR_LOOP_S = 3  # a look costs a tenth of a core's second, also when nothing has landed
BACKFILL_LOOP_S = 5  # when there is none, a look is two small queries


class FeatureStoreInstance(dg.DagsterInstance):
    """Named in dagster.yaml as `instance_class`; whatever that file says of storage goes before."""

    @classmethod
    def config_schema(cls) -> Mapping[str, Any]:
        return {}

    @staticmethod
    def config_defaults(base_dir: str) -> Mapping[str, ConfigurableClassData | None]:
        state = yaml.dump({"base_dir": str(Path(base_dir) / "state")})
        parts = {name: ConfigurableClassData(module, cls, state) for name, (module, cls) in _STORAGES.items()}
        whole = yaml.dump({name: part._asdict() for name, part in parts.items()})
        storage = ConfigurableClassData("dagster._core.storage.legacy_storage", "CompositeStorage", whole)
        return {**InstanceRef.config_defaults(base_dir), **parts, "storage": storage}

    def get_sensor_settings(self) -> Mapping[str, Any]:
        """Asked for by the daemon when it makes its loop over the sensors.

        Stock, a look begins every five seconds, whatever interval a sensor has, and no setting changes it: most of the
        time from landed to served would be spent there.
        """
        from dagster._daemon import sensor as sensor_loop  # takes a second; the daemon has imported it already

        sensor_loop.MIN_INTERVAL_LOOP_TIME = SENSOR_LOOP_S
        return super().get_sensor_settings()

    def get_backfill_settings(self) -> Mapping[str, Any]:
        """The same for backfills: stock, one waits up to 30 seconds to begin, and as long again until it is done."""
        from dagster._daemon import controller  # see above

        controller.DEFAULT_DAEMON_INTERVAL_SECONDS = BACKFILL_LOOP_S
        return super().get_backfill_settings()
