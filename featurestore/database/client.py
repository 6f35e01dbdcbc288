"""The database for everyone else: one interface, here over the queues of the service."""

import os
import secrets
import threading
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any, Protocol, TypeVar, cast

import pyarrow as pa

from featurestore.database.job_files import JobFiles
from featurestore.database.jobs import (
    AppendJob,
    AppendReply,
    CatalogueJob,
    EraseJob,
    Job,
    JobReply,
    MoveJob,
    VacuumJob,
)
from featurestore.database.queues import WAITING_READS, Queues, connect, redis_errors
from featurestore.database.reads import ReadRequest, Value, params_to_wire, table_of
from featurestore.database.rows import build
from featurestore.database.wire import REPLY, encode
from featurestore.definitions.query import Query
from featurestore.errors import DatabaseBusyError, JobRefusedError
from featurestore.settings import Settings

Row = TypeVar("Row")

INLINE_BYTES = 256 * 2**20  # of one job on the stream
VACUUM_S = 600.0
_POLL_S = 0.05
_RETRY_S = 0.5


class Database(Protocol):
    """The log and everything beside it, wherever the file is. Thread-safe."""

    def append(self, job: AppendJob) -> AppendReply:
        """Log the job's rows and ledger lines, in one transaction; pairs already in the ledger are skipped.

        Raises:
            JobRefusedError: columns, types, counts or code are not what the target wants, or DuckDB failed the job.
            TransientError: whether it was done is not known; the same job may be sent again.
        """
        ...

    def ensure(self, job: CatalogueJob) -> None:
        """Make the catalogue of view versions what the job says.

        Raises:
            JobRefusedError: it cannot be so; a version is registered with other code, say.
            TransientError: as for `append`.
        """
        ...

    def move(self, job: MoveJob) -> None:
        """Let files of the lake take the place of rows of a log, in one step.

        Raises:
            JobRefusedError: the files do not hold exactly these rows.
            TransientError: as for `append`.
        """
        ...

    def erase(self, job: EraseJob) -> None:
        """Take away what was made of an entity's rows; no reader sees it any more.

        Raises:
            JobRefusedError: DuckDB failed the job.
            TransientError: as for `append`.
        """
        ...

    def vacuum(self) -> None:
        """Write the database's file anew, without the bytes of what was deleted.

        Raises:
            JobRefusedError: it cannot be written, because the disk is full, say; everything is as before.
            TransientError: as for `append`.
        """
        ...

    def query(self, sql: str | Query, params: Mapping[str, Value] | None = None, *, into: type[Row]) -> list[Row]:
        """Run one SELECT and build `into`, a dataclass with fields named like the columns, from each row.

        It is SQL, or a query that the project declares.

        Raises:
            QueryError: the statement was refused or failed, or its columns are not the fields of `into`.
            TransientError: no answer in time.
        """
        ...

    def query_arrow(self, sql: str | Query, params: Mapping[str, Value] | None = None) -> pa.Table:
        """Run one SELECT; times are as in the log, UTC without a zone. Raises as `query` does."""
        ...

    def close(self) -> None: ...


class QueueDatabase:
    """The service's database. Every call waits at most `timeout_s` for its reply, under a key nobody can guess."""

    def __init__(
        self,
        redis_url: str,
        *,
        namespace: str = "",
        timeout_s: float = 30.0,
        queue_jobs: int = 10_000,
        jobs_dir: Path | None = None,
        sql_token: str = "",
    ) -> None:
        """`jobs_dir`: the service's, where large jobs leave their rows; None on a machine that does not share it."""
        self._client = connect(redis_url, wait_s=timeout_s)
        self._queues = Queues(namespace)
        self._timeout_s, self._queue_jobs = timeout_s, queue_jobs
        self._waiting = queue_jobs  # on the stream, when it was last looked at; here: nobody has looked
        self._sql_token = sql_token
        self._files = JobFiles(jobs_dir) if jobs_dir else None
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"  # whom the service is fair to
        self._closed = threading.Event()

    @classmethod
    def of(cls, settings: Settings) -> "QueueDatabase":
        """The database of the platform that these settings are of."""
        return cls(
            settings.redis.queues,
            namespace=settings.namespace,
            timeout_s=settings.database.read_timeout_s,
            queue_jobs=settings.database.queue_jobs,
            jobs_dir=settings.jobs_dir,
            sql_token=settings.database.sql_token,
        )

    def append(self, job: AppendJob) -> AppendReply:
        """As `Database.append`. Waits while the stream is long; DatabaseBusyError when it stays so."""
        return self._send(job).appended()

    def ensure(self, job: CatalogueJob) -> None:
        """As `Database.ensure`."""
        self._send(job).appended()

    def move(self, job: MoveJob) -> None:
        """As `Database.move`."""
        self._send(job).appended()

    def erase(self, job: EraseJob) -> None:
        """As `Database.erase`."""
        self._send(job).appended()

    def vacuum(self) -> None:
        """As `Database.vacuum`; it may take minutes."""
        self._send(VacuumJob("vacuum"), timeout_s=max(VACUUM_S, self._timeout_s)).appended()

    def query(self, sql: str | Query, params: Mapping[str, Value] | None = None, *, into: type[Row]) -> list[Row]:
        """As `Database.query`."""
        return build(self.query_arrow(sql, params), into)

    def query_arrow(self, sql: str | Query, params: Mapping[str, Value] | None = None) -> pa.Table:
        """As `Database.query_arrow`."""
        what = {"name": sql.name} if isinstance(sql, Query) else {"query": sql, "token": self._sql_token}
        request = ReadRequest(
            **what,
            params=params_to_wire(params),
            response_key=self._reply_key(),
            format="arrow",
            client=self._name,
            timeout_s=self._timeout_s,
        )
        with redis_errors(self._client):
            return table_of(self._ask(request))

    def close(self) -> None:
        self._closed.set()
        self._client.close()

    def _send(self, job: Job, *, timeout_s: float | None = None) -> JobReply:
        """Again while the service says that it is not the job's fault, and there is time."""
        timeout_s = timeout_s or self._timeout_s
        until = monotonic() + timeout_s
        while True:
            reply = self._send_once(job, until, timeout_s)
            if not reply.retry or monotonic() + _RETRY_S > until or self._closed.wait(_RETRY_S):
                return reply

    def _send_once(self, job: Job, until: float, timeout_s: float) -> JobReply:
        with redis_errors(self._client):
            if self._waiting >= self._queue_jobs:
                self._wait_for_room(until)
            fields = {**encode(job, self._files and self._files.write), REPLY: self._reply_key().encode()}
            size = sum(map(len, fields.values()))
            if size > INLINE_BYTES:
                raise JobRefusedError(f"the job has {size} bytes, at most {INLINE_BYTES} are taken; give it less")
            pipe = self._client.pipeline(transaction=False)
            pipe.xadd(self._queues.write, cast("dict[Any, Any]", fields))
            pipe.xlen(self._queues.write)
            _, self._waiting = pipe.execute()
            reply = self._wait(fields[REPLY], max(0.001, until - monotonic()))
            if reply is None:
                raise DatabaseBusyError(timeout_s, self._client.xlen(self._queues.write))
        return JobReply.from_json(reply)

    def _wait_for_room(self, until: float) -> None:
        while (waiting := self._client.xlen(self._queues.write)) >= self._queue_jobs:
            if monotonic() > until:
                raise DatabaseBusyError(self._timeout_s, waiting)
            self._closed.wait(_POLL_S)

    def _ask(self, request: ReadRequest) -> bytes:
        data: Any = request.to_json()
        waiting = self._client.lpush(self._queues.read, data)
        if waiting <= WAITING_READS:
            reply = self._wait(request.response_key.encode(), self._timeout_s)
            if reply is not None:
                return reply
        self._client.lrem(self._queues.read, 0, data)  # nobody waits for it any more
        raise DatabaseBusyError(self._timeout_s if waiting <= WAITING_READS else 0.0, waiting)

    def _wait(self, key: bytes, timeout_s: float) -> bytes | None:
        popped = cast("tuple[bytes, bytes] | None", self._client.blpop([key], timeout=timeout_s))
        return popped[1] if popped else None

    def _reply_key(self) -> str:
        return self._queues.replies + secrets.token_urlsafe(24)
