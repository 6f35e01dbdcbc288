"""A real Redis: durable, closed to strangers, marked as ours."""

from pathlib import Path

import pytest
import redis

from featurestore_cli.stack.ports import Ports
from featurestore_cli.stack.redis import MARKER, RedisServer, answers, mark, marked
from tests.services import ENV, Redis, redis_process, running

pytestmark = pytest.mark.services


def test_it_is_durable_and_never_forgets_by_itself(redis_server: Redis) -> None:
    with redis.Redis.from_url(redis_server.url, decode_responses=True) as client:
        settings = client.config_get("*")
    assert settings["appendonly"] == "yes"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["bind"] == "127.0.0.1 -::1"
    assert settings["save"] == ""


def test_values_survive_a_restart(tmp_path: Path) -> None:
    with redis_process(tmp_path) as first, redis.Redis.from_url(first.url) as client:
        client.set("kept", "yes")
    with redis_process(tmp_path) as second, redis.Redis.from_url(second.url) as client:
        assert client.get("kept") == b"yes"


def test_without_the_password_there_is_no_answer(redis_server: Redis) -> None:
    assert answers(redis_server.url)
    assert not answers(redis_server.url.replace("for-tests", "guessed"))


def test_the_password_is_not_in_the_list_of_processes_and_the_file_is_private(tmp_path: Path) -> None:
    server = RedisServer(home=tmp_path / "redis", port=Ports().take(), password="a-secret")
    program = server.program(ENV)
    assert "a-secret" not in " ".join(program.command)
    assert "a-secret" not in repr(server)
    assert (tmp_path / "redis" / "redis.conf").stat().st_mode & 0o777 == 0o600
    with running(program, tmp_path):
        assert answers(server.url)


def test_only_the_marker_of_the_same_platform_counts(redis_url: str) -> None:
    assert not marked(redis_url, "abc")
    mark(redis_url, "abc")
    assert marked(redis_url, "abc")
    assert not marked(redis_url, "abcd")
    assert not marked(redis_url.replace("for-tests", "guessed"), "abc")
    with redis.Redis.from_url(redis_url) as client:
        assert client.keys() == [MARKER.encode()]
