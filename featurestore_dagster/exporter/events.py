"""What runs have reported, counted while it happens: rows of views, online values, ended runs.

A run is too short to be scraped, so its counts are taken from the events that it left. Counting begins when the
exporter starts; Prometheus knows that counters start anew.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, Protocol

import dagster as dg
from dagster._core.event_api import EventLogRecord
from prometheus_client import CollectorRegistry, Counter, Gauge

from featurestore.definitions.project import Project
from featurestore_dagster.names import Keys

PAGE = 500
End = Literal[dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED]
ENDS: Mapping[End, str] = {
    dg.DagsterEventType.RUN_SUCCESS: "success",
    dg.DagsterEventType.RUN_FAILURE: "failure",
    dg.DagsterEventType.RUN_CANCELED: "canceled",
}
# Of the metadata of a materialization: name → outcome.
ROWS = {"dagster/row_count": "logged", "filtered": "filtered", "quarantined": "quarantined"}
PUSHED = {"written": "written", "stale": "stale"}


class EventCounters:
    """Reads on from where it was; a look costs a query per view and kind of event."""

    def __init__(self, project: Project, keys: Keys, registry: CollectorRegistry) -> None:
        self._runs = Counter("fs_dagster_runs_ended", "Ended runs.", ["status"], registry=registry)
        self._rows = Counter("fs_feature_rows", "Rows by what became of them.", ["view", "outcome"], registry=registry)
        self._pushed = Counter(
            "fs_online_push",
            "Entities given to Redis by outcome.",
            ["view", "outcome"],
            registry=registry,
        )
        self._newest = Gauge(
            "fs_feature_newest_event_timestamp_seconds",
            "The newest applied event.",
            ["view"],
            registry=registry,
        )
        self._newest_seen: dict[str, float] = {}
        self._views = {
            view.name: (keys.features(view.name), keys.online(view.name) if view.online_features else None)
            for view in project.feature_views
        }
        self._after: dict[object, int] = {}
        for status in ENDS.values():
            self._runs.labels(status)
        for view, (_, online) in self._views.items():
            for outcome in ROWS.values():
                self._rows.labels(view, outcome)
            for outcome in PUSHED.values() if online else ():
                self._pushed.labels(view, outcome)

    def count(self, instance: dg.DagsterInstance) -> None:
        """Count what was reported since the last time."""
        for kind, status in ENDS.items():
            self._runs.labels(status).inc(sum(1 for _ in self._new_ends(instance, kind)))
        for view, (features, online) in self._views.items():
            for metadata in self._new_metadata(instance, features):
                self._add(self._rows, view, ROWS, metadata)
                self._see(view, metadata.get("newest_event"))
            for metadata in self._new_metadata(instance, online) if online else ():
                self._add(self._pushed, view, PUSHED, metadata)

    def _add(self, counter: Counter, view: str, names: Mapping[str, str], metadata: Mapping[str, object]) -> None:
        for name, outcome in names.items():
            value = metadata.get(name)
            if isinstance(value, int):
                counter.labels(view, outcome).inc(value)

    def _see(self, view: str, newest: object) -> None:
        if isinstance(newest, float | int):
            self._newest_seen[view] = max(newest, self._newest_seen.get(view, newest))
            self._newest.labels(view).set(self._newest_seen[view])

    def _new_ends(self, instance: dg.DagsterInstance, kind: End) -> Iterator[EventLogRecord]:
        def page(after: int | None) -> Iterable[EventLogRecord]:
            if after is None:
                return instance.fetch_run_status_changes(kind, limit=1).records
            query = dg.RunStatusChangeRecordsFilter(kind, after_storage_id=after)
            return instance.fetch_run_status_changes(query, limit=PAGE, ascending=True).records

        return self._new(kind, page)

    def _new_metadata(self, instance: dg.DagsterInstance, key: dg.AssetKey) -> Iterator[Mapping[str, object]]:
        def page(after: int | None) -> Iterable[EventLogRecord]:
            if after is None:
                return instance.fetch_materializations(key, limit=1).records
            query = dg.AssetRecordsFilter(key, after_storage_id=after)
            return instance.fetch_materializations(query, limit=PAGE, ascending=True).records

        for record in self._new(key, page):
            made = record.asset_materialization
            if made is not None:
                yield {name: value.value for name, value in made.metadata.items()}

    def _new(self, what: object, page: "Page") -> Iterator[EventLogRecord]:
        """The records after the last that was seen; the first time, where the end is."""
        if what not in self._after:
            self._after[what] = max((record.storage_id for record in page(None)), default=0)
            return
        while records := list(page(self._after[what])):
            self._after[what] = records[-1].storage_id
            yield from records


class Page(Protocol):
    def __call__(self, after: int | None) -> Iterable[EventLogRecord]: ...
