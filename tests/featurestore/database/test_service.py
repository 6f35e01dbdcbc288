"""The service takes every job once, whatever happens to it, to Redis or to the job."""

import json
import subprocess
import sys
import threading
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from featurestore.database.connection import open_database
from featurestore.database.intake import CONSUMER, GROUP, Intake
from featurestore.database.job_files import JobFiles
from featurestore.database.jobs import JobReply, SchemaJob
from featurestore.database.queues import Queues, connect
from featurestore.database.tables import view_table
from featurestore.database.wire import encode
from featurestore.database.writer import Writer
from featurestore.errors import DatabaseBusyError, JobRefusedError, TransientError
from tests.featurestore.database.examples import ACTIVITY, SCHEMA, job
from tests.featurestore.database.serving import Serving, client, on_a_thread, process, settings_for
from tests.services import eventually, redis_process

pytestmark = pytest.mark.services

QUEUES = Queues()


@pytest.fixture
def redis_client(redis_url: str) -> Generator["redis.Redis"]:
    with redis.Redis.from_url(redis_url, protocol=2) as opened:
        yield opened


@pytest.fixture
def serving(tmp_path: Path, redis_url: str) -> Generator[Serving]:
    with on_a_thread(settings_for(tmp_path, redis_url)) as running:
        yield running


def send(redis_client: "redis.Redis", fields: dict[bytes, bytes], reply: str = "duckdb_reply:test") -> Any:
    """Send as any language may; returns the reply."""
    redis_client.xadd(QUEUES.write, {**fields, b"reply": reply.encode()})  # type: ignore[dict-item]
    popped = redis_client.blpop([reply], timeout=10)
    return json.loads(popped[1]) if popped else None


def rows_in(serving: Serving) -> int:
    with client(serving.settings) as database:
        return database.query_arrow("SELECT count(*) AS n FROM log.activity_v1").to_pylist()[0]["n"]


def test_jobs_wait_for_the_first_start(tmp_path: Path, redis_client: "redis.Redis", redis_url: str) -> None:
    settings = settings_for(tmp_path, redis_url)
    with client(settings, timeout_s=0.2) as database:
        for batch in "ab":
            with pytest.raises(DatabaseBusyError, match=r"no reply from the database service after 0.2 s"):
                database.append(job((batch, 2)))
    with on_a_thread(settings) as serving:
        eventually(lambda: redis_client.xlen(QUEUES.write) == 0)
        assert rows_in(serving) == 4


@pytest.mark.parametrize("committed", [False, True])
def test_what_a_dead_service_had_taken_is_taken_again(
    tmp_path: Path, redis_client: "redis.Redis", redis_url: str, committed: bool
) -> None:
    settings, taken = settings_for(tmp_path, redis_url), job(("a", 2))
    redis_client.xadd(QUEUES.write, {**encode(taken), b"reply": b"duckdb_reply:test"})  # type: ignore[dict-item]
    redis_client.xgroup_create(QUEUES.write, GROUP, id="0")
    assert redis_client.xreadgroup(GROUP, CONSUMER, {QUEUES.write: ">"}, count=1)
    told: tuple[int, ...] = ()
    if committed:
        settings.database_file.parent.mkdir()
        with open_database(settings.database_file) as connection:
            told = Writer(connection).commit([SCHEMA, taken])[1].commit_seqs
    with on_a_thread(settings) as serving:
        eventually(lambda: redis_client.xlen(QUEUES.write) == 0)
        assert rows_in(serving) == 2
    assert redis_client.xpending(QUEUES.write, GROUP)["pending"] == 0
    reply = JobReply.from_json(redis_client.lpop("duckdb_reply:test"))  # type: ignore[arg-type]
    assert (reply.skipped, reply.commit_seqs) == ((committed,), told or reply.commit_seqs)


def test_an_emptied_redis_is_made_ready_again(serving: Serving, redis_client: "redis.Redis") -> None:
    with client(serving.settings) as database:
        database.append(job(("a", 2)))
        redis_client.flushall()
        database.append(job(("b", 2)))
    assert rows_in(serving) == 4
    assert serving.health.state == "ready"


def test_a_restarted_redis_is_found_again(tmp_path: Path) -> None:
    home = tmp_path / "redis"
    with redis_process(home) as first:
        settings = settings_for(tmp_path / "data", first.url)
        port = int(first.url.rsplit(":", 1)[1].split("/")[0])
        with on_a_thread(settings) as serving, client(settings) as database:
            database.append(job(("a", 2)))
            first.child.stop()
            eventually(lambda: serving.health.state == "not ready", within_s=30)
            assert "Redis does not answer" in serving.health.note
            with pytest.raises(TransientError):
                database.append(job(("b", 2)))
            with redis_process(home, port=port):
                eventually(lambda: serving.health.state == "ready", within_s=30)
                database.append(job(("b", 2)))
                assert rows_in(serving) == 4


def test_a_wrong_job_goes_to_the_dead_queue_without_its_rows(serving: Serving, redis_client: "redis.Redis") -> None:
    with client(serving.settings) as database, pytest.raises(JobRefusedError, match="not registered"):
        database.append(replace(job(("a", 2), job_id="wrong"), target="gone@v1"))
    [(_, dead)] = redis_client.xrange(QUEUES.dead)
    assert json.loads(dead[b"header"])["job_id"] == "wrong"
    assert b"'gone@v1' is not registered" in dead[b"error"]
    assert b"rows" not in dead
    # The reply goes first, the counting follows.
    eventually(lambda: serving.counted("fs_write_jobs_completed_total", outcome="refused") == 1)
    assert redis_client.xlen(QUEUES.write) == 0


def test_what_is_no_job_is_answered(serving: Serving, redis_client: "redis.Redis") -> None:
    fields = encode(job(("a", 1), job_id="broken"))
    reply = send(redis_client, {**fields, b"rows": fields[b"rows"][:100]})
    assert reply["job_id"] == "broken"
    assert reply["error"].startswith("rows: not an Arrow IPC stream")
    assert "kind 'sql'" in send(redis_client, {b"kind": b"sql", b"header": b"DROP TABLE applied"})["error"]
    assert redis_client.xlen(QUEUES.dead) == 2
    assert send(redis_client, fields)["skipped"] == [False]


def test_a_job_that_is_never_finished_is_given_up(tmp_path: Path, redis_client: "redis.Redis", redis_url: str) -> None:
    settings = settings_for(tmp_path, redis_url)
    fields = {**encode(job(("a", 2), job_id="deadly")), b"reply": b"duckdb_reply:test"}
    redis_client.xadd(QUEUES.write, fields)  # type: ignore[arg-type]
    redis_client.xadd(QUEUES.write, encode(job(("b", 3))))  # type: ignore[arg-type]
    for _ in range(6):  # once in a group, then alone: as often as the process died with it in its hands
        intake = Intake(connect(redis_url, wait_s=1), QUEUES, JobFiles(settings.jobs_dir), settings.database)
        intake.make_group()
        assert intake.take()[0].job is not None
    with on_a_thread(settings) as serving:
        eventually(lambda: redis_client.xlen(QUEUES.write) == 0)
        assert rows_in(serving) == 3
    reply = redis_client.lpop("duckdb_reply:test")
    assert isinstance(reply, bytes)
    assert "never finished" in json.loads(reply)["error"]


def test_replies_go_nowhere_else(serving: Serving, redis_client: "redis.Redis") -> None:
    redis_client.set("treasure", "gold")
    fields = encode(job(("a", 1)))
    for key in (b"treasure", b"elsewhere", b"", b"duckdb_reply"):
        redis_client.xadd(QUEUES.write, {**fields, b"reply": key})  # type: ignore[dict-item]
        request = {"query": "SELECT 1", "response_key": key.decode()}
        redis_client.lpush(QUEUES.read, json.dumps(request))
    eventually(lambda: serving.counted("fs_reads_total", outcome="dropped") == 4)
    assert send(redis_client, fields)["skipped"] == [True]
    assert redis_client.get("treasure") == b"gold"
    assert redis_client.exists("elsewhere", "", "duckdb_reply") == 0


def test_a_reply_key_of_another_type_harms_nobody(serving: Serving, redis_client: "redis.Redis") -> None:
    redis_client.set("duckdb_reply:taken", "text")
    redis_client.xadd(QUEUES.write, {**encode(job(("a", 1))), b"reply": b"duckdb_reply:taken"})  # type: ignore[dict-item]
    redis_client.lpush(QUEUES.read, json.dumps({"query": "SELECT 1", "response_key": "duckdb_reply:taken"}))
    assert send(redis_client, encode(job(("a", 1))))["skipped"] == [True]
    with client(serving.settings) as database:
        assert database.query_arrow("SELECT 1 AS a").num_rows == 1


def test_replies_that_nobody_takes_go_by_themselves(serving: Serving, redis_client: "redis.Redis") -> None:
    redis_client.lpush(QUEUES.read, json.dumps({"query": "SELECT 1", "response_key": "duckdb_reply:forgotten"}))
    redis_client.xadd(QUEUES.write, {**encode(job(("a", 1))), b"reply": b"duckdb_reply:also"})  # type: ignore[dict-item]
    for key in ("duckdb_reply:forgotten", "duckdb_reply:also"):
        eventually(lambda key=key: 0 < int(redis_client.ttl(key)) <= 60)


def test_namespaces_do_not_meet(tmp_path: Path, redis_url: str) -> None:
    plain = settings_for(tmp_path / "plain", redis_url)
    other = replace(settings_for(tmp_path / "other", redis_url), namespace="other")
    with on_a_thread(plain) as one, on_a_thread(other) as two:
        with client(other) as database:
            database.append(job(("a", 3)))
        assert (rows_in(one), rows_in(two)) == (0, 3)


def test_a_view_that_is_refused_keeps_no_other_from_working(tmp_path: Path, redis_url: str) -> None:
    settings = settings_for(tmp_path, redis_url)
    with on_a_thread(settings):
        pass
    changed = view_table(replace(ACTIVITY, where="steps > 0"))
    second = view_table(replace(ACTIVITY, version=2))
    with on_a_thread(settings, SchemaJob("declared", (changed, second))) as serving, client(settings) as database:
        assert "give activity version=2" in serving.health.note
        assert serving.health.state == "ready"
        database.append(job(("a", 2)))
        assert database.query_arrow("FROM log.activity_v2").num_rows == 0


def test_it_counts_what_it_does(serving: Serving) -> None:
    with client(serving.settings) as database:
        for _ in range(2):
            database.append(job(("a", 3), ("b", 2)))
        database.query_arrow("SELECT 1")
    eventually(lambda: serving.counted("fs_write_jobs_completed_total", outcome="skipped") == 1)
    assert serving.counted("fs_write_rows_total") == 5
    assert serving.counted("fs_write_jobs_completed_total", outcome="done") == 1
    assert serving.counted("fs_write_job_seconds_count", kind="append") == 2
    eventually(lambda: serving.counted("fs_read_query_seconds_count") == 1)
    eventually(lambda: serving.counted("fs_reads_total", outcome="done") == 1)
    eventually(lambda: serving.counted("fs_write_queue_depth") == 0)


def test_many_small_jobs_share_commits(serving: Serving) -> None:
    def append(number: int) -> None:
        with client(serving.settings) as database:
            for part in range(10):
                database.append(job((f"{number}-{part}", 1)))

    threads = [threading.Thread(target=append, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert rows_in(serving) == 80
    assert serving.counted("fs_write_group_jobs_count") < 80


def test_the_process_drains_on_a_signal(tmp_path: Path, redis_url: str) -> None:
    settings = settings_for(tmp_path, redis_url)
    running = process(settings)
    try:
        with client(settings) as database:
            database.append(job(("a", 2)))
    finally:
        running.terminate()
        assert running.wait(timeout=30) == 0
    assert settings.database_file.parent.stat().st_mode & 0o777 == 0o700
    with on_a_thread(settings) as serving:
        assert rows_in(serving) == 2


def test_a_newer_database_ends_the_process(tmp_path: Path, redis_url: str) -> None:
    settings = settings_for(tmp_path, redis_url)
    with on_a_thread(settings):
        pass
    newer = (
        f"import duckdb; duckdb.connect({str(settings.database_file)!r}).execute('UPDATE store_info SET format = 99')"
    )
    subprocess.run([sys.executable, "-c", newer], check=True, timeout=60)
    assert process(settings).wait(timeout=60) == 1


def test_registering_again_is_harmless(serving: Serving) -> None:
    with client(serving.settings) as database:
        database.ensure(SCHEMA)
        database.ensure(SchemaJob("none", ()))
