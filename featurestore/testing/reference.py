"""Point-in-time reads the slow way: every row looked at, in plain Python. What the kernel has to equal, to the bit."""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from featurestore.definitions.durations import duration
from featurestore.definitions.feature import Aggregation, Feature
from featurestore.definitions.view import FeatureView
from featurestore.windows import Window

Row = Mapping[str, Any]  # of the log: entity_id, event_timestamp, created_at, sequence, tie and the view's columns
Tiles = Mapping[int, Sequence[Any]]
KnownAt = datetime | Literal["row"] | None

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NO_DELAY = timedelta(0)


def value_at(
    view: FeatureView,
    name: str,
    log: Sequence[Row],
    entity_id: str,
    time: datetime,
    *,
    known_at: KnownAt = None,
    delay: timedelta = _NO_DELAY,
) -> Any:
    """The value of a feature of `view` for an entity at a time; times are aware."""
    rows = [row for row in log if row["entity_id"] == entity_id and row["event_timestamp"] <= time]
    if isinstance(known_at, datetime):
        rows = [row for row in rows if row["created_at"] <= known_at]
    elif known_at == "row":
        rows = [row for row in rows if row["created_at"] + delay <= time]
    rows.sort(key=lambda row: (row["event_timestamp"], row["created_at"], row["sequence"], row["tie"]))
    for declared in view.features:
        if isinstance(declared, Feature):
            if declared.name == name:
                return _newest(declared, rows, time)
        else:
            for window in declared.windows:
                if f"{declared.name}_{window}" == name:
                    return _folded(declared, window, rows, time)
    raise KeyError(name)


def _newest(feature: Feature, rows: Sequence[Row], time: datetime) -> Any:
    if not rows:
        return None
    if feature.longest_age is not None and time - rows[-1]["event_timestamp"] > feature.longest_age:
        return None
    return rows[-1][feature.name]


def _folded(declared: Aggregation, window: str, rows: Sequence[Row], time: datetime) -> Any:
    length = duration(window, "")
    hop_us = Window.of(length).hop_us
    start_us = (_micros(time) - length // _MICROSECOND) // hop_us * hop_us
    tiles: dict[int, list[Any]] = {}
    for row in rows:
        happened_us = _micros(row["event_timestamp"])
        if happened_us > start_us and row[declared.name] is not None:
            tiles.setdefault(-(-happened_us // hop_us), []).append(row[declared.name])
    values = [value for k in sorted(tiles) for value in tiles[k]]
    if declared.function == "count":
        return len(values)
    return _FOLDS[declared.function](values, tiles) if values else None


def _sum(tiles: Tiles) -> Any:
    """Tile by tile, the oldest first; in a tile, one after the other."""
    total = 0.0 if any(isinstance(value, float) for values in tiles.values() for value in values) else 0
    for k in sorted(tiles):
        of_tile = 0.0 if isinstance(total, float) else 0
        for value in tiles[k]:
            of_tile += value
        total += of_tile
    return total


def _mean(values: Sequence[Any], tiles: Tiles) -> float:
    return _sum({k: [float(value) for value in tiles[k]] for k in tiles}) / len(values)


def _nan_is_largest(value: Any) -> tuple[bool, Any]:
    return isinstance(value, float) and math.isnan(value), value


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


_FOLDS: Mapping[str, Callable[[Sequence[Any], Tiles], Any]] = {
    "sum": lambda values, tiles: _sum(tiles),
    "mean": _mean,
    "min": lambda values, tiles: min(values, key=_nan_is_largest),
    "max": lambda values, tiles: max(values, key=_nan_is_largest),
    "first": lambda values, tiles: values[0],
    "last": lambda values, tiles: values[-1],
}
