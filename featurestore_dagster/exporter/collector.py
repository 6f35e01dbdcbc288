"""The last looks as metric families. A look is replaced whole: a scrape never mixes two."""

from collections.abc import Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from featurestore_dagster.exporter.looks import DagsterLook, PipelineLook


class LookCollector(Collector):
    """Ages are never exported, only times: `time() - x` is right at the moment of the question."""

    def __init__(self) -> None:
        self.dagster: DagsterLook | None = None
        self.pipeline = PipelineLook()

    def collect(self) -> Iterable[Metric]:
        if self.dagster is not None:
            yield from _of_dagster(self.dagster)
        yield from _of_pipeline(self.pipeline)


def _of_dagster(look: DagsterLook) -> Iterator[Metric]:
    yield _gauge("fs_dagster_runs", "Runs by status.", ["status"], [([s], n) for s, n in look.runs.items()])
    queued = [([], look.oldest_queued_at)] if look.oldest_queued_at is not None else []
    yield _gauge("fs_dagster_oldest_queued_timestamp_seconds", "When the run that waits longest was made.", [], queued)
    yield _gauge(
        "fs_dagster_heartbeat_timestamp_seconds",
        "When a daemon was last alive.",
        ["daemon"],
        [([daemon], at) for daemon, at in look.heartbeats.items()],
    )
    yield _gauge(
        "fs_dagster_tick_timestamp_seconds",
        "The last tick of a sensor or schedule.",
        ["name", "kind"],
        [([tick.name, tick.kind], tick.at) for tick in look.ticks],
    )
    yield _gauge(
        "fs_dagster_tick_failed",
        "Whether the last tick failed.",
        ["name", "kind"],
        [([tick.name, tick.kind], tick.failed) for tick in look.ticks],
    )
    yield _gauge(
        "fs_asset_materialized_timestamp_seconds",
        "When an asset was last materialized.",
        ["asset"],
        [([one.asset], one.materialized_at) for one in look.assets if one.materialized_at is not None],
    )
    yield _gauge(
        "fs_asset_failed",
        "Whether the last run that should have materialized an asset failed.",
        ["asset"],
        [([one.asset], one.failed) for one in look.assets],
    )
    yield _gauge(
        "fs_asset_check_passed",
        "What a check said last.",
        ["asset", "check"],
        [([one.asset, one.check], one.passed) for one in look.checks],
    )
    yield _gauge(
        "fs_asset_check_timestamp_seconds",
        "When a check was last evaluated.",
        ["asset", "check"],
        [([one.asset, one.check], one.at) for one in look.checks],
    )


def _of_pipeline(look: PipelineLook) -> Iterator[Metric]:
    waiting = look.backlog.items()
    yield _gauge(
        "fs_pending_batches", "Landed and not in every log.", ["source"], [([s], one.batches) for s, one in waiting]
    )
    yield _gauge("fs_pending_rows", "Rows of pending batches.", ["source"], [([s], one.rows) for s, one in waiting])
    yield _gauge(
        "fs_parked_batches", "Left alone until released.", ["source"], [([s], one.parked) for s, one in waiting]
    )
    yield _gauge(
        "fs_pending_oldest_timestamp_seconds",
        "When the oldest pending batch landed.",
        ["source"],
        [([s], one.oldest_at.timestamp()) for s, one in waiting if one.oldest_at is not None],
    )


def _gauge(name: str, text: str, labels: list[str], samples: list[tuple[list[str], float]]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family
