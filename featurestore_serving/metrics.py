"""What the feature server counts."""

import time
from collections.abc import Generator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from featurestore.errors import FeatureStoreError
from featurestore_serving.refusals import Reason, Transport, reason_of

ANSWERED = "ANSWERED"
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class ModelMetrics:
    """Of the models that are loaded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.loads = Counter("fs_server_model_loads", "Versions of models that were loaded.", registry=registry)
        self.size_bytes = Gauge(
            "fs_server_model_bytes", "Artifacts of loaded models.", multiprocess_mode="livesum", registry=registry
        )


class ServerMetrics:
    """Labels are transports and reasons: nothing that a client chooses."""

    def __init__(self, registry: CollectorRegistry) -> None:
        requests = Counter(
            "fs_server_requests", "Requests for features by outcome.", ["transport", "outcome"], registry=registry
        )
        seconds = Histogram(
            "fs_server_seconds",
            "From a whole request to its reply.",
            ["transport"],
            buckets=_SECONDS,
            registry=registry,
        )
        rows = Counter("fs_server_rows", "Rows that were asked for and answered.", ["transport"], registry=registry)
        # Made here once, because finding a child by its labels takes longer than counting.
        self._outcomes = {
            (transport, outcome): requests.labels(transport.value, outcome)
            for transport in Transport
            for outcome in (ANSWERED, *Reason)
        }
        self._seconds = {transport: seconds.labels(transport.value) for transport in Transport}
        self._rows = {transport: rows.labels(transport.value) for transport in Transport}

    @contextmanager
    def observed(self, transport: Transport) -> Generator[None]:
        """Count one request by how it ends, and how long it took."""
        start, outcome = time.perf_counter(), Reason.INTERNAL.value
        try:
            yield
            outcome = ANSWERED
        except FeatureStoreError as error:
            outcome = reason_of(error).value
            raise
        finally:
            self._outcomes[transport, outcome].inc()
            self._seconds[transport].observe(time.perf_counter() - start)

    def answered(self, transport: Transport, rows: int) -> None:
        self._rows[transport].inc(rows)
