"""What both daemons count; see `featurestore.process.metrics` for how it is read."""

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from featurestore.landing.batch import Batch

OUTCOMES = ("landed", "dead_letter", "absent")
_BATCH_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class IngestMetrics:
    """Counted by batch, never by record; labels are declared names, so their number is bounded."""

    def __init__(self, registry: CollectorRegistry, sources: Iterable[str] = ()) -> None:
        """Of the `sources`, everything is 0 before anything happens, so that rates begin with the first."""
        records = Counter(
            "fs_ingest_records", "Records by what became of them.", ["source", "outcome"], registry=registry
        )
        seconds = Histogram(
            "fs_ingest_batch_seconds",
            "From the decision to land a batch until it was durable.",
            ["source"],
            buckets=_BATCH_SECONDS,
            registry=registry,
        )
        self._records, self._seconds = records, seconds
        self._bytes = Counter("fs_ingest_landed_bytes", "Size of landed files.", ["source"], registry=registry)
        self._unknown = Counter(
            "fs_ingest_unknown_members", "Members of records that are not declared.", ["source"], registry=registry
        )
        self.fenced = Counter(
            "fs_ingest_fenced", "Batches given up because another writer was first.", ["source"], registry=registry
        )
        self.lag = Gauge(
            "fs_kafka_lag_records", "Records that are not landed yet.", ["topic", "partition"], registry=registry
        )
        for source in sources:
            for outcome in OUTCOMES:
                records.labels(source, outcome)
            self.fenced.labels(source)

    def landed(self, batches: Sequence[Batch], *, took_s: float) -> None:
        """What became visible at once, and how long it took."""
        for batch in batches:
            self._records.labels(batch.source, "landed").inc(batch.rows)
            self._records.labels(batch.source, "dead_letter").inc(batch.dead_rows)
            self._records.labels(batch.source, "absent").inc(batch.absent_rows)
            self._bytes.labels(batch.source).inc(batch.bytes)
        self._seconds.labels(batches[0].source).observe(took_s)

    def unknown_members(self, source: str, count: int) -> None:
        if count:
            self._unknown.labels(source).inc(count)
