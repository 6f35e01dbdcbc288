"""What the generator counts."""

from prometheus_client import CollectorRegistry, Counter

from ingest.generator.ledger import Sent


class GeneratorMetrics:
    """Acknowledged records by whether they were good."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._records = Counter(
            "fs_generator_records", "Acknowledged records.", ["source", "outcome"], registry=registry
        )

    def add(self, source: str, changes: Sent) -> None:
        for outcome in ("good", "bad", "in_doubt"):
            self._records.labels(source, outcome).inc(getattr(changes, outcome))
