"""One who asks for too much gets an error; the service, the writers and everybody else go on."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from featurestore.database.queues import Queues
from featurestore.database.wire import encode
from featurestore.errors import QueryError
from tests.featurestore.database.examples import job
from tests.featurestore.database.serving import client, on_a_thread, process, settings_for
from tests.services import eventually

pytestmark = pytest.mark.services

GREEDY = (
    "SELECT repeat('x', 4000000000) AS a",
    "SELECT length(repeat('x', 4000000000)) AS a",
    "SELECT range(2000000000) AS a",
    "SELECT list(i) AS a FROM range(3000000000) AS t(i)",
    "SELECT repeat('abcdefghij', 1000000) AS a FROM range(1000000)",
    "SELECT array_agg(repeat('x', 1000)) AS a FROM range(100000000)",
)


def test_no_query_takes_the_service_down(tmp_path: Path, redis_url: str) -> None:
    settings = settings_for(tmp_path, redis_url)
    running = process(settings)
    try:
        with client(settings) as database, client(settings) as writer, ThreadPoolExecutor(1) as pool:
            writer.append(job(("before", 1)))
            writing = pool.submit(lambda: [writer.append(job((f"beside-{n}", 100))) for n in range(30)])
            for sql in GREEDY:
                with pytest.raises(QueryError, match=r"(?i)out of memory|more than \d+ bytes|was stopped"):
                    database.query_arrow(sql)
            writing.result(timeout=60)
            peak = [line for line in Path(f"/proc/{running.pid}/status").read_text().splitlines() if "VmHWM" in line]
            assert int(peak[0].split()[1]) < 3 * 10**6  # kB; one of the queries alone wanted more
            assert database.query_arrow("SELECT count(*) AS n FROM applied").to_pylist() == [{"n": 31}]
        assert running.poll() is None
    finally:
        running.terminate()
        assert running.wait(timeout=60) == 0


def test_thousands_of_tiny_jobs_are_done_in_groups(tmp_path: Path, redis_url: str) -> None:
    settings, jobs = settings_for(tmp_path, redis_url), 3_000
    with redis.Redis.from_url(redis_url, protocol=2) as queues:
        pipe = queues.pipeline(transaction=False)
        for number in range(jobs):
            fields = {**encode(job((f"tiny-{number}", 1), job_id=str(number))), b"reply": b"duckdb_reply:tiny"}
            pipe.xadd(Queues().write, fields)  # type: ignore[arg-type]
        pipe.execute()
        with on_a_thread(settings) as serving, client(settings) as database:
            eventually(lambda: queues.xlen(Queues().write) == 0, within_s=100)
            assert queues.llen("duckdb_reply:tiny") == jobs
            found = database.query_arrow("SELECT count(*) AS n, count(DISTINCT tie) AS batches FROM log.activity_v1")
            assert found.to_pylist() == [{"n": jobs, "batches": jobs}]
            assert serving.counted("fs_write_group_jobs_count") < jobs / 20


def test_who_floods_waits_behind_who_asks_little(tmp_path: Path, redis_url: str) -> None:
    settings = settings_for(tmp_path, redis_url, readers=1, admitted_reads=20)
    slow = "SELECT count(*) AS n FROM range(20000000) AS t(i) WHERE hash(i) % 7 = 3"
    keys = [f"duckdb_reply:flood-{number}" for number in range(500)]
    with redis.Redis.from_url(redis_url, protocol=2) as queues, on_a_thread(settings), client(settings) as small:
        for key in keys:
            queues.lpush(Queues().read, json.dumps({"query": slow, "response_key": key, "client": "flood"}))
        assert small.query_arrow("SELECT 1 AS n").num_rows == 1
        replies = [json.loads(reply) for key in keys if (reply := queues.lpop(key))]  # type: ignore[arg-type]
    refused = [reply for reply in replies if "20 queries of this client wait already" in reply.get("error", "")]
    assert all(reply["retry"] for reply in refused)
    assert len(replies) - len(refused) < 15  # answered before the small one, which did not wait for the others
    assert len(refused) > 400
