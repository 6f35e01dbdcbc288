"""Batches that keep failing, seen from outside of the sensor: what it knows of them, and how they are released."""

from collections.abc import Collection
from datetime import datetime, timedelta

import dagster as dg
import msgspec
from dagster._core.definitions.run_request import InstigatorType

from featurestore.landing.batch import utc_now
from featurestore_dagster.names import LANDED_SENSOR, PLAIN, Keys
from featurestore_dagster.sensors.cursor import Cursor

_KEY = "featurestore/released_batches"  # beside Dagster's own cursors
_KEPT = timedelta(days=1)  # by then the sensor has seen it


def sensor_cursor(instance: dg.DagsterInstance, keys: Keys = PLAIN) -> Cursor:
    """What the sensor of landed batches has left behind at the end of its last tick."""
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        if state.name == keys.name(LANDED_SENSOR):
            return Cursor.from_json(getattr(state.instigator_data, "cursor", None), utc_now())
    return Cursor.from_json(None, utc_now())


def release(instance: dg.DagsterInstance, batch_ids: Collection[str], now: datetime) -> None:
    """Have the sensor forget, with its next tick, what failed runs have taught it about these batches until now.

    Kept beside the sensor's cursor and not in it, which a tick that is under way would write over.
    """
    known = {batch_id: at for batch_id, at in released(instance).items() if now - at < _KEPT}
    values = {**known, **dict.fromkeys(batch_ids, now)}
    instance.run_storage.set_cursor_values({_KEY: msgspec.json.encode(values).decode()})


def released(instance: dg.DagsterInstance) -> dict[str, datetime]:
    """When which batch was released."""
    found = instance.run_storage.get_cursor_values({_KEY}).get(_KEY, "{}")
    return msgspec.json.decode(found, type=dict[str, datetime])
