"""The reading side of the service: takes queries from the list, runs them guarded, replies."""

import logging
import os
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from hmac import compare_digest
from time import monotonic
from typing import cast

import duckdb
import redis

from featurestore.database.guard import Caps, Guard, reading
from featurestore.database.lanes import Alarms, FairQueue, Seats, deadline
from featurestore.database.metrics import DatabaseMetrics
from featurestore.database.queues import REPLY_TTL_S, WAITING_READS, Queues, connect, redis_errors
from featurestore.database.raw import RawRelations
from featurestore.database.reads import ReadRequest, data_reply, error_reply, params_from_wire, response_key_of
from featurestore.errors import QueryError, TransientError
from featurestore.settings import DatabaseSettings

log = logging.getLogger(__name__)

_POLL_S = 1.0
_IDLE_S = 5.0  # how often an idle thread looks around
_SLOW_S = 1.0  # after which a query is a slow one
_NICENESS = 10  # of the threads that run queries: where processors are few, the writer gets most of one
_DRAIN_S = 5.0  # that queries have when the process is asked to stop


@dataclass(frozen=True, slots=True)
class _Admitted:
    request: ReadRequest
    at: float = field(default_factory=monotonic)


class Readers:
    """Threads of their own; the writer never waits for them.

    At most `admitted_reads` queries of a client wait for their turn; what it asks beyond that is refused at once, so
    that nobody is behind a client that asks much. `readers` of them run at once, and as many slow ones beside them.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        url: str,
        queues: Queues,
        settings: DatabaseSettings,
        metrics: DatabaseMetrics,
        named: Mapping[str, str],
        raw: RawRelations,
    ) -> None:
        """`named`: the SQL of the declared queries."""
        self._root = connection.cursor()  # never busy itself, so a fresh cursor of it is never waited for
        self._client = connect(url, wait_s=_POLL_S)
        self._queues, self._settings, self._metrics = queues, settings, metrics
        self._named, self._raw = named, raw
        self._guard = Guard(Caps(settings.read_rows, settings.read_bytes))
        self._admitted: FairQueue[_Admitted] = FairQueue(settings.admitted_reads)
        self._places = threading.Semaphore(WAITING_READS)
        self._seats = Seats(settings.readers)
        self._alarms = Alarms()
        self._stopping, self._hurrying = threading.Event(), threading.Event()
        self._pool = ThreadPoolExecutor(2 * settings.readers + 1, thread_name_prefix="reader")
        self._threads: list[Future[None]] = []

    def start(self) -> None:
        self._threads = [self._pool.submit(self._admit)]
        self._threads += [self._pool.submit(self._serve) for _ in range(2 * self._settings.readers)]

    def check(self) -> None:
        """Raise what ended one of the threads, if something did."""
        for thread in self._threads:
            if thread.done():
                thread.result()

    def drain(self) -> None:
        """Take no more queries; answer the admitted ones, after a few seconds by stopping them."""
        self._stopping.set()
        wait(self._threads, timeout=_DRAIN_S)
        self._hurrying.set()
        self._alarms.ring()
        self._pool.shutdown(wait=True)

    def stop(self) -> None:
        self.drain()
        self._alarms.close()
        self._client.close()
        self._root.close()

    def _admit(self) -> None:
        try:
            while not self._stopping.is_set():
                if not self._places.acquire(timeout=_POLL_S):
                    continue
                request = self._next_request()
                if request is None or not self._admit_one(request):
                    self._places.release()
        finally:
            self._admitted.close()

    def _admit_one(self, request: ReadRequest) -> bool:
        if self._admitted.put(request.client, _Admitted(request)):
            return True
        most = self._settings.admitted_reads
        reply = error_reply(f"{most} queries of this client wait already; ask again when they are answered", retry=True)
        self._metrics.reads[self._reply(request.response_key, "refused", reply)].inc()
        return False

    def _next_request(self) -> ReadRequest | None:
        try:
            with redis_errors(self._client):
                popped = cast("tuple[bytes, bytes] | None", self._client.brpop([self._queues.read], timeout=_POLL_S))
        except TransientError as error:
            log.warning("no queries are taken: %s", error)
            self._stopping.wait(_POLL_S)
            return None
        if popped is None:
            return None
        key = response_key_of(popped[1])
        if not key.startswith(self._queues.replies):
            log.warning("a query was dropped: its response key does not start with %s", self._queues.replies)
            self._metrics.reads["dropped"].inc()
            return None
        try:
            return ReadRequest.from_json(popped[1])
        except QueryError as error:
            self._metrics.reads[self._reply(key, "refused", error_reply(str(error)))].inc()
            return None

    def _serve(self) -> None:
        if sys.platform == "linux":  # elsewhere a thread has no priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while not self._admitted.closed:
            seat = self._seats.take(_IDLE_S)
            if seat is None:
                continue
            try:
                admitted = self._admitted.take(_IDLE_S)
                if admitted is not None:
                    with self._alarms.after(_SLOW_S, seat.move):
                        self._do(admitted)
            finally:
                seat.leave()

    def _do(self, admitted: _Admitted) -> None:
        try:
            outcome = self._answer(admitted)
        finally:
            self._places.release()
        self._metrics.reads[outcome].inc()
        self._metrics.query_seconds.observe(monotonic() - admitted.at)

    def _answer(self, admitted: _Admitted) -> str:
        request, key = admitted.request, admitted.request.response_key
        allowed_s = min(request.timeout_s or self._settings.read_timeout_s, self._settings.read_timeout_s)
        left_s = admitted.at + allowed_s - monotonic()
        if left_s <= 0 or self._hurrying.is_set():
            return self._reply(key, "late", error_reply("the query was not reached in time; try again", retry=True))
        with reading(self._root) as cursor, deadline(self._alarms, cursor, left_s) as limit:
            try:
                sql = self._sql(request)
                self._raw.prepare(cursor, sql)
                table = self._guard.read(cursor, sql, params_from_wire(request.params))
                reply = data_reply(table, request.format)
            except MemoryError:
                return self._reply(key, "refused", error_reply("out of memory: the result is too large; ask for less"))
            except QueryError as error:
                if limit.passed:
                    waited_s = monotonic() - admitted.at
                    return self._reply(key, "late", error_reply(f"the query was stopped after {waited_s:.1f} s"))
                return self._reply(key, "refused", error_reply(str(error)))
            return self._reply(key, "done", reply)

    def _sql(self, request: ReadRequest) -> str:
        if request.name:
            if request.name not in self._named:
                raise QueryError(f"there is no query {request.name!r}; declared are {', '.join(self._named) or 'none'}")
            return self._named[request.name]
        if not compare_digest(request.token.encode(), self._settings.sql_token.encode()):
            raise QueryError("SQL of your own is not taken here without the token; ask a declared query by its name")
        return request.query

    def _reply(self, key: str, outcome: str, reply: bytes) -> str:
        pipe = self._client.pipeline(transaction=False)
        pipe.rpush(key, reply)
        pipe.expire(key, REPLY_TTL_S)
        try:
            with redis_errors(self._client):
                pipe.execute()
        except TransientError as error:
            log.warning("a reply was lost: %s", error)
        except redis.ResponseError as error:  # e.g. a key of another type
            log.warning("a reply could not be given: %s", error)
        return outcome
