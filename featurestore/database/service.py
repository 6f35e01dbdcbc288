"""The one process that owns the database file: start → step → drain → stop."""

import logging
from time import monotonic

import duckdb
from prometheus_client import CollectorRegistry

from featurestore.database.connection import open_database
from featurestore.database.intake import Delivery, Intake, refusal
from featurestore.database.job_files import JobFiles
from featurestore.database.jobs import AppendJob, Job, JobReply, SchemaJob
from featurestore.database.metrics import DatabaseMetrics
from featurestore.database.queues import Queues, connect, redis_errors
from featurestore.database.readers import Readers
from featurestore.database.tables import schema_job
from featurestore.database.writer import Writer
from featurestore.definitions.project import load_project
from featurestore.definitions.registered import write_registered
from featurestore.errors import TransientError
from featurestore.process.daemon import Daemon, run_until_signalled
from featurestore.process.health import Health
from featurestore.process.metrics import serve
from featurestore.settings import Settings

log = logging.getLogger(__name__)

_THREADS = 2


class DatabaseService:
    """Writes what the stream brings, in groups; readers run beside it.

    A job is taken off the stream after its commit. Whatever ends the process in between, the job is taken again at the
    next start, and the ledger makes that harmless.
    """

    def __init__(
        self, settings: Settings, *, schema: SchemaJob, health: Health, registry: CollectorRegistry | None = None
    ) -> None:
        self._settings, self._schema, self._health = settings, schema, health
        self._queues = Queues(settings.namespace)
        self._metrics = DatabaseMetrics(registry or CollectorRegistry())
        self._client = connect(settings.redis.queues, wait_s=1.0)
        self._intake = Intake(self._client, self._queues, JobFiles(settings.jobs_dir), settings.database)
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._readers: Readers | None = None

    def start(self) -> None:
        """Open the database before the first job is read; called again after a TransientError."""
        if self._connection is None:
            self._connection = self._open()
            self._writer = Writer(self._connection, lake_dir=self._settings.lake_dir)
            self._refused = self._register()
        with redis_errors(self._client):
            self._intake.make_group()
        self._readers = Readers(
            self._connection, self._settings.redis.queues, self._queues, self._settings.database, self._metrics
        )
        self._readers.start()
        self._health.ready(self._refused)
        log.info("ready: %s", self._settings.database_file)

    def step(self) -> bool:
        if self._readers:
            self._readers.check()
        try:
            with redis_errors(self._client):
                deliveries = self._intake.take()
                if not deliveries:
                    self._metrics.queue_depth.set(0)
                    return False
                self._do(deliveries)
        except TransientError:
            self._intake.recover()
            raise
        return True

    def drain(self) -> None:
        """Jobs that are not taken wait on the stream; queries that are admitted are answered."""
        if self._readers:
            self._readers.drain()

    def stop(self) -> None:
        if self._readers:
            self._readers.stop()
        if self._connection is not None:
            self._connection.close()
        self._client.close()

    def _open(self) -> duckdb.DuckDBPyConnection:
        settings = self._settings
        settings.database_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        allowed = (settings.landing_dir, settings.lake_dir)
        return open_database(settings.database_file, memory=settings.database.memory, threads=_THREADS, allowed=allowed)

    def _register(self) -> str:
        """Register the declared views, one by one: a view that is refused keeps none of the others from working."""
        jobs = [SchemaJob(table.target, (table,)) for table in self._schema.tables]
        errors = [reply.error for reply in self._writer.commit(jobs) if reply.error]
        write_registered(self._settings.registered_file, self._writer.registered())
        for error in errors:
            log.error("%s", error)
        return "; ".join(errors)

    def _do(self, deliveries: list[Delivery]) -> None:
        began = monotonic()
        done = iter(self._writer.commit([one.job for one in deliveries if one.job is not None]))
        replies = [refusal(one) if one.job is None else next(done) for one in deliveries]
        if any(one.job is not None and not isinstance(one.job, AppendJob) for one in deliveries):
            write_registered(self._settings.registered_file, self._writer.registered())
        self._metrics.queue_depth.set(self._intake.settle(deliveries, replies))
        self._metrics.group_jobs.observe(len(deliveries))
        for one, reply in zip(deliveries, replies, strict=True):
            self._count(one.job, reply, monotonic() - began)

    def _count(self, job: Job | None, reply: JobReply, seconds: float) -> None:
        if job is None or reply.error:
            self._metrics.jobs["refused"].inc()
            return
        self._metrics.job_seconds.labels(job.kind).observe(seconds)
        self._metrics.jobs["skipped" if reply.skipped and all(reply.skipped) else "done"].inc()
        if isinstance(job, AppendJob):
            new = zip(job.lines, reply.skipped, strict=True)
            self._metrics.rows.inc(sum(line.logged for line, skipped in new if not skipped))


def main(settings: Settings) -> int:
    """Run until signalled; returns the exit code."""
    health, registry = Health(), CollectorRegistry()
    schema = schema_job(load_project(settings.project))
    service = DatabaseService(settings, schema=schema, health=health, registry=registry)
    with serve(settings.metrics_port, registry, health):
        return run_until_signalled(Daemon(service, health=health))
