"""What the database service counts."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_REQUEST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class DatabaseMetrics:
    """Counters of one process, in its own registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.queue_depth = Gauge("fs_write_queue_depth", "Write jobs waiting.", registry=registry)
        self.open_seconds = Gauge(
            "fs_database_open_seconds",
            "What opening the database took; after a crash, what was committed last is read again.",
            registry=registry,
        )
        self.job_seconds = Histogram(
            "fs_write_job_seconds",
            "From taking a write job to its reply.",
            ["kind"],
            buckets=_REQUEST,
            registry=registry,
        )
        self.group_jobs = Histogram(
            "fs_write_group_jobs",
            "Write jobs done together.",
            buckets=(1, 2, 5, 10, 25, 50, 100, 250),
            registry=registry,
        )
        self.rows = Counter("fs_write_rows_total", "Rows given with write jobs that were done.", registry=registry)
        jobs = Counter("fs_write_jobs_completed_total", "Write jobs by outcome.", ["outcome"], registry=registry)
        self.jobs = {outcome: jobs.labels(outcome) for outcome in ("done", "skipped", "refused")}
        self.query_seconds = Histogram(
            "fs_read_query_seconds", "From admitting a query to its reply.", buckets=_REQUEST, registry=registry
        )
        reads = Counter("fs_reads_total", "Queries by outcome.", ["outcome"], registry=registry)
        self.reads = {outcome: reads.labels(outcome) for outcome in ("done", "refused", "late", "dropped")}
