"""The queue client says clearly what is wrong, waits no longer than it should and leaves nothing behind."""

import json
import re
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import pytest
import redis

from featurestore.database.client import QueueDatabase
from featurestore.database.queues import WAITING_READS, Queues
from featurestore.errors import DatabaseBusyError, QueryError, StoreUnavailableError, TransientError
from featurestore_cli.stack.ports import Ports
from tests.featurestore.database.examples import job
from tests.featurestore.database.serving import client, on_a_thread, settings_for
from tests.services import eventually

pytestmark = pytest.mark.services

QUEUES = Queues()


@pytest.fixture
def redis_client(redis_url: str) -> Generator["redis.Redis"]:
    with redis.Redis.from_url(redis_url, protocol=2) as opened:
        yield opened


def test_without_redis_nothing_answers() -> None:
    port = Ports().take()
    database = QueueDatabase(f"redis://:hidden@127.0.0.1:{port}/0", timeout_s=1)
    for call in (lambda: database.append(job(("a", 1))), lambda: database.query_arrow("SELECT 1")):
        with pytest.raises(StoreUnavailableError) as raised:
            call()
        assert str(raised.value) == (
            f"Redis does not answer at 127.0.0.1:{port} (Connection refused); is it started? `featurestore doctor`"
        )
    database.close()


def test_without_the_service_a_query_waits_and_is_withdrawn(redis_client: "redis.Redis", redis_url: str) -> None:
    database = QueueDatabase(redis_url, timeout_s=0.3)
    began = monotonic()
    with pytest.raises(DatabaseBusyError) as raised:
        database.query_arrow("SELECT 1")
    assert str(raised.value) == (
        "no reply from the database service after 0.3 s (1 jobs wait); see `featurestore status`"
    )
    assert 0.3 <= monotonic() - began < 10
    assert redis_client.llen(QUEUES.read) == 0
    database.close()


def test_a_long_list_of_queries_takes_no_more(redis_client: "redis.Redis", redis_url: str) -> None:
    redis_client.lpush(QUEUES.read, *["{}"] * WAITING_READS)
    database = QueueDatabase(redis_url, timeout_s=30)
    with pytest.raises(DatabaseBusyError, match=f"{WAITING_READS + 1} jobs wait"):
        database.query_arrow("SELECT 1")
    assert redis_client.llen(QUEUES.read) == WAITING_READS
    database.close()


def test_a_long_stream_makes_writers_wait(redis_client: "redis.Redis", redis_url: str) -> None:
    database = QueueDatabase(redis_url, timeout_s=0.3, queue_jobs=2)
    for batch in "ab":
        with pytest.raises(DatabaseBusyError):
            database.append(job((batch, 1)))
    with pytest.raises(DatabaseBusyError, match="2 jobs wait"):
        database.append(job(("c", 1)))
    assert redis_client.xlen(QUEUES.write) == 2
    patient = QueueDatabase(redis_url, timeout_s=20, queue_jobs=2)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(patient.append, job(("d", 1)))
        redis_client.xtrim(QUEUES.write, maxlen=0)
        [(_, [(_, fields)])] = redis_client.xread({QUEUES.write: "0"}, block=10_000)
        redis_client.rpush(fields[b"reply"], b'{"job_id": "d", "commit_seqs": [1], "skipped": [false]}')
        assert waiting.result(timeout=20).commit_seqs == (1,)
    for one in (database, patient):
        one.close()


def test_a_job_that_is_not_to_blame_is_sent_again_while_there_is_time(
    redis_client: "redis.Redis", redis_url: str
) -> None:
    def answer(**reply: object) -> dict[bytes, bytes]:
        """As the service, to the oldest job."""
        [(_, [(entry, fields)])] = redis_client.xread({QUEUES.write: "0"}, block=10_000)
        redis_client.xdel(QUEUES.write, entry)
        redis_client.rpush(fields[b"reply"], json.dumps({"job_id": "job", **reply}))
        return {name: value for name, value in fields.items() if name != b"reply"}

    patient, hasty = (QueueDatabase(redis_url, timeout_s=seconds) for seconds in (60, 0.4))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(patient.append, job(("a", 1)))
        assert answer(error="failed: out of memory", retry=True) == answer(commit_seqs=[1], skipped=[False])
        assert waiting.result(timeout=60).commit_seqs == (1,)
        waiting = pool.submit(hasty.append, job(("b", 1)))
        answer(error="failed: out of memory", retry=True)
        assert isinstance(waiting.exception(timeout=60), TransientError)
    for one in (patient, hasty):
        one.close()


def test_reply_keys_cannot_be_guessed(redis_client: "redis.Redis", redis_url: str) -> None:
    database = QueueDatabase(redis_url, timeout_s=0.1)
    for _ in range(3):
        with pytest.raises(DatabaseBusyError):
            database.append(job(("a", 1)))
    keys = {fields[b"reply"] for _, fields in redis_client.xrange(QUEUES.write)}
    assert len(keys) == 3
    assert all(re.fullmatch(rb"duckdb_reply:[\w-]{32}", key) for key in keys)
    database.close()


def test_a_query_that_never_ends_is_stopped(tmp_path: Path, redis_url: str) -> None:
    settings = settings_for(tmp_path, redis_url, read_timeout_s=1.0)
    with on_a_thread(settings) as serving, client(settings) as database:
        with pytest.raises(QueryError, match=r"the query was stopped after \d+\.\d s"):
            database.query_arrow("SELECT count(*) FROM range(1000000000000) AS t(i) WHERE i % 7 = 3")
        assert database.query_arrow("SELECT 1 AS a").num_rows == 1
        eventually(lambda: serving.counted("fs_reads_total", outcome="late") == 1)


def test_heavy_queries_let_small_ones_through(tmp_path: Path, redis_url: str) -> None:
    settings = settings_for(tmp_path, redis_url, read_timeout_s=6.0, readers=2)
    with on_a_thread(settings), client(settings) as heavy, client(settings) as small:
        never = "SELECT count(*) FROM range(1000000000000) AS t(i) WHERE i % 7 = 3"
        with ThreadPoolExecutor(2) as pool:
            stopped = [pool.submit(heavy.query_arrow, never) for _ in range(2)]
            assert small.query_arrow("SELECT 1 AS a").num_rows == 1
            small.append(job(("a", 100)))
            assert not any(one.done() for one in stopped)
            for one in stopped:
                with pytest.raises(QueryError, match="was stopped"):
                    one.result(timeout=30)


def test_a_stopping_service_waits_for_queries_only_so_long(tmp_path: Path, redis_url: str) -> None:
    settings = settings_for(tmp_path, redis_url, readers=1)
    never = "SELECT count(*) FROM range(1000000000000) AS t(i) WHERE i % 7 = 3"
    with client(settings) as database, ThreadPoolExecutor(4) as pool:
        with on_a_thread(settings) as serving:
            asked = [pool.submit(database.query_arrow, never) for _ in range(4)]
            with redis.Redis.from_url(redis_url) as queues:
                eventually(lambda: queues.llen(QUEUES.read) == 0 and serving.health.state == "ready")
            began = monotonic()
        assert monotonic() - began < 20
        reasons = {str(one.exception(timeout=20)).split(" after")[0] for one in asked}
        assert reasons <= {"the query was stopped", "the query was not reached in time; try again"}


def test_results_are_capped(tmp_path: Path, redis_url: str) -> None:
    settings = settings_for(tmp_path, redis_url, read_rows=100, read_bytes=10_000)
    with on_a_thread(settings), client(settings) as database:
        assert database.query_arrow("FROM range(100)").num_rows == 100
        with pytest.raises(QueryError, match="more than 100 rows"):
            database.query_arrow("FROM range(101)")
        with pytest.raises(QueryError, match="more than 10000 bytes"):
            database.query_arrow("SELECT repeat('x', 1000) FROM range(50)")


def test_only_so_many_queries_of_a_client_wait(tmp_path: Path, redis_url: str) -> None:
    settings = settings_for(tmp_path, redis_url, admitted_reads=2, readers=1, read_timeout_s=1.0)
    never = "SELECT count(*) FROM range(1000000000000) AS t(i) WHERE i % 7 = 3"
    with on_a_thread(settings), client(settings) as database, ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(database.query_arrow, never) for _ in range(6)]
        reasons = [one.exception(timeout=60) for one in asked]
    assert any(isinstance(one, TransientError) and "2 queries of this client wait" in str(one) for one in reasons)
    assert all(isinstance(one, QueryError | TransientError) for one in reasons)


def test_large_results_come_whole(tmp_path: Path, redis_url: str) -> None:
    settings = settings_for(tmp_path, redis_url)
    with on_a_thread(settings), client(settings) as database:
        found = database.query_arrow("SELECT i, 'row ' || i AS s FROM range(500000) AS t(i)")
        assert found.num_rows == 500_000
        assert found["s"][-1].as_py() == "row 499999"
