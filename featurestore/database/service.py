"""The one process that owns the database file: start → step → drain → stop."""

import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from types import MappingProxyType
from typing import Protocol

import duckdb
from prometheus_client import CollectorRegistry

from featurestore.database.connection import open_database
from featurestore.database.feature_jobs import FeatureJob
from featurestore.database.intake import Delivery, Intake, refusal
from featurestore.database.job_files import JobFiles
from featurestore.database.jobs import AppendJob, Job, JobReply, SchemaJob, VacuumJob
from featurestore.database.metrics import DatabaseMetrics
from featurestore.database.queues import Queues, connect, redis_errors
from featurestore.database.raw import RawRelations
from featurestore.database.readers import Readers
from featurestore.database.vacuum import vacuum
from featurestore.database.writer import Writer
from featurestore.definitions.registered import write_registered
from featurestore.errors import JobRefusedError, TransientError
from featurestore.process.health import Health
from featurestore.settings import Settings

log = logging.getLogger(__name__)

_LANDING = 4  # threads; they wait for the disk most of the time


class Door(Protocol):
    """Lets in the values of features that services send; see ingest.feature_writes.FeatureWrites."""

    def land(self, job: FeatureJob) -> list[str]:
        """Land all of the job, or nothing; return its batches.

        Raises:
            JobRefusedError: it cannot be landed.
            TransientError: not now; the same job may be sent again.
        """
        ...


class DatabaseService:
    """Writes what the stream brings, in groups; readers run beside it.

    A job is taken off the stream after its commit. Whatever ends the process in between, the job is taken again at the
    next start, and the ledger makes that harmless.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        schema: SchemaJob,
        queries: Mapping[str, str] = MappingProxyType({}),
        raw: RawRelations,
        door: Door,
        health: Health,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._settings, self._schema, self._door, self._health = settings, schema, door, health
        self._queries, self._raw = queries, raw
        self._queues = Queues(settings.namespace)
        self._metrics = DatabaseMetrics(registry or CollectorRegistry())
        self._client = connect(settings.redis.queues, wait_s=1.0)
        self._intake = Intake(self._client, self._queues, JobFiles(settings.jobs_dir), settings.database)
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._readers: Readers | None = None
        self._landing = ThreadPoolExecutor(_LANDING, thread_name_prefix="landing")

    def start(self) -> None:
        """Open the database before the first job is read; called again after a TransientError."""
        if self._connection is None:
            began = monotonic()
            self._connection = self._open()
            self._metrics.open_seconds.set(monotonic() - began)
            log.info("opened %s in %.1f s", self._settings.database_file, monotonic() - began)
            self._writer = Writer(self._connection, lake_dir=self._settings.lake_dir)
            self._writer.check_lake()
            self._refused = self._register()
            self._raw.create(self._connection)
        with redis_errors(self._client):
            self._intake.make_group()
        self._readers = Readers(
            self._connection,
            self._settings.redis.queues,
            self._queues,
            self._settings.database,
            self._metrics,
            self._queries,
            self._raw,
        )
        self._readers.start()
        self._health.ready(self._refused)

    def step(self) -> bool:
        if self._connection is None:
            self.start()
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
        self._landing.shutdown()
        if self._connection is not None:
            self._connection.close()
        self._client.close()

    def _open(self) -> duckdb.DuckDBPyConnection:
        settings = self._settings
        settings.database_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        allowed = (settings.lake_dir, *self._raw.allowed)
        share = max(1, (os.cpu_count() or 1) // settings.database.readers)  # of the processors, for one query
        return open_database(settings.database_file, memory=settings.database.memory, threads=share, allowed=allowed)

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
        landed = self._landing.map(self._land, [one.job for one in deliveries if isinstance(one.job, FeatureJob)])
        done = iter(self._writer.commit([one.job for one in deliveries if isinstance(one.job, Job)]))
        vacuumed = self._vacuum() if any(isinstance(one.job, VacuumJob) for one in deliveries) else ""
        replies = [
            refusal(one) if one.job is None else next(landed if isinstance(one.job, FeatureJob) else done)
            for one in deliveries
        ]
        if vacuumed:
            replies = [
                JobReply(reply.job_id, error=vacuumed) if isinstance(one.job, VacuumJob) else reply
                for one, reply in zip(deliveries, replies, strict=True)
            ]
        if any(isinstance(one.job, Job) and not isinstance(one.job, AppendJob) for one in deliveries):
            write_registered(self._settings.registered_file, self._writer.registered())
        self._metrics.queue_depth.set(self._intake.settle(deliveries, replies))
        self._metrics.group_jobs.observe(len(deliveries))
        for one, reply in zip(deliveries, replies, strict=True):
            self._count(one.job, reply, monotonic() - began)

    def _vacuum(self) -> str:
        """Write the file anew, while queries wait on their list; return why it was not done."""
        began = monotonic()
        if self._readers:
            self._readers.stop()
        if self._connection is not None:
            self._writer.close()
            self._connection.close()
        self._readers = self._connection = None
        try:
            vacuum(self._settings.database_file, memory=self._settings.database.memory)
        except TransientError as error:
            log.warning("%s", error)
            return str(error)
        finally:
            self.start()
        log.info("%s was written anew in %.1f s", self._settings.database_file, monotonic() - began)
        return ""

    def _land(self, job: FeatureJob) -> JobReply:
        try:
            return JobReply(job.job_id, batch_ids=tuple(self._door.land(job)))
        except (JobRefusedError, TransientError) as error:
            log.warning("values of job %s were not landed (%s)", job.job_id, type(error).__name__)
            return JobReply(job.job_id, error=str(error), retry=isinstance(error, TransientError))

    def _count(self, job: Job | FeatureJob | None, reply: JobReply, seconds: float) -> None:
        if job is None or reply.error:
            self._metrics.jobs["refused"].inc()
            return
        self._metrics.job_seconds.labels(job.kind).observe(seconds)
        self._metrics.jobs["skipped" if reply.skipped and all(reply.skipped) else "done"].inc()
        if isinstance(job, AppendJob):
            new = zip(job.lines, reply.skipped, strict=True)
            self._metrics.rows.inc(sum(line.logged for line, skipped in new if not skipped))
