"""Groups are bounded, pending jobs come first, and settling is one step."""

import json
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from featurestore.database.intake import GROUP, Intake, refusal
from featurestore.database.job_files import JobFiles
from featurestore.database.jobs import JobReply
from featurestore.database.queues import Queues, connect, redis_errors
from featurestore.database.wire import encode
from featurestore.errors import StoreUnavailableError
from featurestore.settings import DatabaseSettings
from tests.featurestore.database.examples import job

pytestmark = pytest.mark.services

QUEUES = Queues()


@pytest.fixture
def redis_client(redis_url: str) -> Generator["redis.Redis"]:
    with redis.Redis.from_url(redis_url, protocol=2) as opened:
        yield opened


def intake(redis_url: str, **settings: int) -> Intake:
    made = Intake(
        connect(redis_url, wait_s=1), QUEUES, JobFiles(Path("nowhere")), replace(DatabaseSettings(), **settings)
    )  # type: ignore[arg-type]
    made.make_group()
    return made


def put(redis_client: "redis.Redis", count: int, rows: int = 1) -> None:
    for number in range(count):
        fields = {**encode(job((f"batch-{number}", rows), job_id=str(number))), b"reply": b"duckdb_reply:all"}
        redis_client.xadd(QUEUES.write, fields)  # type: ignore[arg-type]


def test_what_waits_is_one_group(redis_client: "redis.Redis", redis_url: str) -> None:
    put(redis_client, 30)
    assert [one.job.job_id for one in intake(redis_url).take() if one.job] == [str(number) for number in range(30)]


@pytest.mark.parametrize("bounds", [{"group_rows": 100}, {"group_bytes": 20_000}])
def test_a_group_is_bounded(redis_client: "redis.Redis", redis_url: str, bounds: dict[str, int]) -> None:
    put(redis_client, 60, rows=20)
    bounded = intake(redis_url, **bounds)
    sizes: list[int] = []
    while taken := bounded.take():
        sizes.append(len(taken))
        assert bounded.settle(taken, [JobReply("")] * len(taken)) == 60 - sum(sizes)
    assert sum(sizes) == 60
    assert max(sizes) < 30


def test_settling_replies_and_empties(redis_client: "redis.Redis", redis_url: str) -> None:
    put(redis_client, 2)
    opened = intake(redis_url)
    taken = opened.take()
    assert opened.settle(taken, [JobReply("0", (5,), (False,)), JobReply("1", error="no")]) == 0
    replies = [json.loads(one) for one in redis_client.lrange("duckdb_reply:all", 0, -1)]
    assert replies == [
        {"job_id": "0", "commit_seqs": [5], "skipped": [False]},
        {"job_id": "1", "error": "no", "retry": False},
    ]
    assert redis_client.xpending(QUEUES.write, GROUP)["pending"] == 0
    assert redis_client.xlen(QUEUES.dead) == 1


def test_what_was_not_settled_comes_again_alone_and_first(redis_client: "redis.Redis", redis_url: str) -> None:
    put(redis_client, 3)
    opened = intake(redis_url)
    lost = opened.take()
    put(redis_client, 1)
    opened.recover()
    for one in lost:
        [again] = opened.take()
        assert again.entry_id == one.entry_id
        opened.settle([again], [JobReply("")])
    assert len(opened.take()) == 1


def test_only_the_end_of_the_process_counts_as_an_attempt(redis_client: "redis.Redis", redis_url: str) -> None:
    put(redis_client, 1)
    opened = intake(redis_url)
    opened.take()
    for _ in range(20):  # e.g. the disk is full for a while
        opened.recover()
        [again] = opened.take()
        assert again.job is not None
    for _ in range(4):
        [again] = intake(redis_url).take()
        assert again.job is not None
    [given_up] = intake(redis_url).take()
    assert given_up.job is None
    assert "begun 5 times and never finished" in given_up.reason
    opened.settle([given_up], [refusal(given_up)])
    assert not redis_client.exists(QUEUES.attempts)


def test_an_entry_that_was_deleted_while_pending_is_dropped(redis_client: "redis.Redis", redis_url: str) -> None:
    put(redis_client, 2)
    opened = intake(redis_url)
    first, second = opened.take()
    redis_client.xdel(QUEUES.write, first.entry_id)
    opened.recover()
    [gone] = opened.take()
    assert gone.job is None
    opened.settle([gone], [refusal(gone)])
    [left] = opened.take()
    assert left.entry_id == second.entry_id


def test_a_lost_connection_is_transient_and_names_no_password(redis_url: str) -> None:
    client = connect(redis_url.replace("for-tests", "wrong-one"), wait_s=1)
    with (
        pytest.raises(StoreUnavailableError, match=r"Redis does not answer at 127\.0\.0\.1") as raised,
        redis_errors(client),
    ):
        client.ping()
    assert "wrong-one" not in str(raised.value)


def test_the_namespace_is_in_front_of_every_key() -> None:
    plain, own = Queues(), Queues("mine")
    assert (plain.write, plain.read, plain.dead, plain.replies) == (
        "duckdb_write_queue",
        "duckdb_read_queue",
        "duckdb_dead_queue",
        "duckdb_reply:",
    )
    assert (own.write, own.replies) == ("mine:duckdb_write_queue", "mine:duckdb_reply:")
