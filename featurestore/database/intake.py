"""The service's end of the write stream: take jobs in groups, settle them after the commit.

Entries stay pending in the consumer group until they are settled, so whatever a crash or a lost connection leaves is
taken again, and the ledger makes that harmless.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, cast

import msgspec
import redis

from featurestore.database.feature_jobs import FeatureJob
from featurestore.database.job_files import JobFiles
from featurestore.database.jobs import AppendJob, Job, JobReply
from featurestore.database.queues import REPLY_TTL_S, Queues
from featurestore.database.wire import HEADER, KIND, decode, job_id_of, reply_key_of
from featurestore.errors import JobRefusedError, TransientError
from featurestore.settings import DatabaseSettings

log = logging.getLogger(__name__)

GROUP = CONSUMER = "database"  # one consumer: whoever holds the database file
BLOCK_MS = 1000
_LOOK_S = 0.0005
_READ_ENTRIES = 8  # at a time; bounds how far the bytes of a group may be exceeded
_LANDING_ROWS = 1_000
_MAX_ATTEMPTS = 5  # a job that ended the process so often is given up
_DEAD_ENTRIES = 10_000
_DEAD_BYTES = 65_536  # of a header; rows are not kept, they are in the landing zone


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """A stream entry with its job, or why there is none."""

    entry_id: bytes
    fields: Mapping[bytes, bytes]
    job: Job | FeatureJob | None
    reason: str = ""
    retry: bool = False  # the reason passes by itself
    size: int = 0


class Intake:
    """Not thread-safe; every method does I/O and may raise redis.RedisError."""

    def __init__(self, client: redis.Redis, queues: Queues, files: JobFiles, settings: DatabaseSettings) -> None:
        self._client, self._queues, self._files, self._settings = client, queues, files, settings
        self._recovering = True
        self._survived = False  # what was begun last did not end the process
        self._never = threading.Event()
        self._expected = 0  # jobs: those that wait already, and one of each whom we have just answered

    def recover(self) -> None:
        """Take again what was taken and not settled, one by one, before anything new."""
        self._recovering = self._survived = True

    def take(self) -> list[Delivery]:
        """The next jobs, as one group; waits about a second for the first."""
        if self._recovering:
            if delivery := self._oldest_pending():
                return [delivery]
            self._recovering = False
        found = deliveries = self._new(BLOCK_MS)
        if not deliveries:
            self._expected = 0
            self._files.sweep()
        until = monotonic() + self._settings.group_wait_ms / 1000
        while deliveries and not self._full(deliveries):
            if len(found) < _READ_ENTRIES:  # that was all
                if len(deliveries) >= self._expected or monotonic() > until:
                    break
                self._never.wait(_LOOK_S)  # not by blocking in Redis, whose clock for that ticks ten times a second
            found = self._new(None)
            deliveries += found
        return deliveries

    def settle(self, deliveries: Sequence[Delivery], replies: Sequence[JobReply]) -> int:
        """Reply, and take the jobs off the stream, in one step; returns how many jobs are left on it."""
        pipe = self._client.pipeline(transaction=True)
        for delivery, reply in zip(deliveries, replies, strict=True):
            key = reply_key_of(delivery.fields)
            if key.startswith(self._queues.replies.encode()):
                pipe.rpush(key, reply.to_json())
                pipe.expire(key, REPLY_TTL_S)
            if reply.error:
                header = delivery.fields.get(HEADER, b"")[:_DEAD_BYTES] or msgspec.json.encode({"job_id": reply.job_id})
                kind = delivery.fields.get(KIND, b"features")
                dead: dict[Any, Any] = {KIND: kind, HEADER: header, b"error": reply.error.encode()}
                pipe.xadd(self._queues.dead, dead, maxlen=_DEAD_ENTRIES, approximate=True)
        ids = [delivery.entry_id for delivery in deliveries]
        pipe.xack(self._queues.write, GROUP, *ids)
        pipe.xdel(self._queues.write, *ids)
        pipe.delete(self._queues.attempts)
        pipe.xlen(self._queues.write)
        results = pipe.execute(raise_on_error=False)  # a reply key of another type fails alone
        *_, acknowledged, _, _, depth = results
        if isinstance(acknowledged, Exception):
            raise acknowledged
        for delivery in deliveries:
            self._files.remove(delivery.fields)
        self._expected = int(depth) + len(deliveries)
        return int(depth)

    def make_group(self) -> None:
        """At the beginning of the stream, so that jobs sent before the first start, or after a flush, are taken."""
        try:
            self._client.xgroup_create(self._queues.write, GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def _full(self, deliveries: Sequence[Delivery]) -> bool:
        rows = sum(_rows(one.job) for one in deliveries)
        return rows >= self._settings.group_rows or sum(one.size for one in deliveries) >= self._settings.group_bytes

    def _new(self, block_ms: int | None) -> list[Delivery]:
        return [self._delivery(entry_id, fields) for entry_id, fields in self._read(">", _READ_ENTRIES, block_ms)]

    def _oldest_pending(self) -> Delivery | None:
        entries = self._read("0", 1, None)
        if not entries:
            return None
        [(entry_id, fields)] = entries
        if self._survived:
            self._client.delete(self._queues.attempts)
            self._survived = False
        attempt = cast("int", self._client.hincrby(self._queues.attempts, entry_id.decode(), 1))
        if attempt > _MAX_ATTEMPTS:
            reason = f"given up: begun {attempt - 1} times and never finished"
            log.error("entry %s: %s", entry_id.decode(), reason)
            return Delivery(entry_id, fields or {}, None, reason)
        return self._delivery(entry_id, fields)

    def _read(self, after: str, count: int, block_ms: int | None) -> list[tuple[bytes, dict[bytes, bytes] | None]]:
        """An entry that was deleted while pending comes without fields."""
        stream: dict[Any, Any] = {self._queues.write: after}
        try:
            streams = self._client.xreadgroup(GROUP, CONSUMER, stream, count=count, block=block_ms)
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            log.warning("the write stream has no consumer group (a new or emptied Redis); creating it")
            self.make_group()
            return []
        named = cast("list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes] | None]]]]", streams or [])
        return [entry for _, entries in named for entry in entries]

    def _delivery(self, entry_id: bytes, fields: dict[bytes, bytes] | None) -> Delivery:
        fields = fields or {}
        try:
            whole = self._files.fill(fields)
            return Delivery(entry_id, fields, decode(whole), size=sum(map(len, whole.values())))
        except (JobRefusedError, TransientError) as error:
            log.warning("entry %s refused: %s", entry_id.decode(), error)
            return Delivery(entry_id, fields, None, str(error), retry=isinstance(error, TransientError))


def _rows(job: Job | FeatureJob | None) -> int:
    """What a job is worth in a group; landing a job of its own takes as long as logging many rows."""
    if isinstance(job, AppendJob):
        return sum(line.logged for line in job.lines)
    return _LANDING_ROWS if isinstance(job, FeatureJob) else 0


def refusal(delivery: Delivery) -> JobReply:
    """The reply to a delivery without a job."""
    return JobReply(job_id_of(delivery.fields), error=delivery.reason, retry=delivery.retry)
