"""The database's process, driven by redis-cli alone: what any language can do."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from featurestore.apply import apply_batches
from featurestore.landing.zone import LandingZone
from featurestore.online.redis_store import RedisOnlineStore
from featurestore.settings import Settings
from featurestore.store import Store
from featurestore_cli.main import main
from tests.featurestore.database.examples import ACTIVITY, PROJECT
from tests.featurestore.database.serving import client, on_a_thread, settings_for
from tests.services import ENV

pytestmark = pytest.mark.services

Cli = Callable[..., str]
REPLY = "duckdb_reply:cli"


@pytest.fixture
def cli(redis_url: str) -> Cli:
    _, _, rest = redis_url.partition("//:")
    password, _, address = rest.partition("@")
    host, _, port = address.split("/")[0].partition(":")

    def run(*words: str) -> str:
        command = [str(Path(sys.executable).with_name("redis-cli")), "-h", host, "-p", port, *words]
        env = {**ENV, "REDISCLI_AUTH": password, "PATH": os.defpath}
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30, env=env).stdout

    return run


def ask(cli: Cli, **request: object) -> Any:
    cli("LPUSH", "duckdb_read_queue", json.dumps({**request, "response_key": REPLY}))
    return json.loads(cli("BLPOP", REPLY, "20").split("\n", 1)[1])


def write(cli: Cli, **job: object) -> Any:
    cli("XADD", "duckdb_write_queue", "*", "json", json.dumps({"table": "features", **job, "response_key": REPLY}))
    return json.loads(cli("BLPOP", REPLY, "20").split("\n", 1)[1])


def apply(settings: Settings) -> None:
    """What the runs of the sensor do with what has landed."""
    zone = LandingZone(settings.landing_dir)
    online = RedisOnlineStore(settings.redis.url)
    with client(settings) as database:
        apply_batches(ACTIVITY, zone.batches("events"), zone, database, online)
    online.close()


def test_a_value_is_landed_logged_and_online_once_however_often_it_is_sent(
    tmp_path: Path, cli: Cli, redis_url: str
) -> None:
    settings, at = settings_for(tmp_path, redis_url), datetime.now(UTC).isoformat()
    row = {"last_action": "buy", "amount": 2.5, "steps": 7}
    data = [{"entity_id": "1", "feature_name": f, "value": v, "event_timestamp": at} for f, v in row.items()]
    landed = {"job_id": "score-1", "batch_ids": ["events/job=score-1/00000000000000000000.parquet"]}
    with on_a_thread(settings):
        for _ in range(3):
            assert write(cli, job_id="score-1", data=data) == landed
            apply(settings)
        query = "SELECT feature_name, value, value_text FROM features WHERE entity_id = $id ORDER BY ALL"
        assert ask(cli, query=query, params={"id": "1"}) == {
            "data": [
                {"feature_name": "amount", "value": 2.5, "value_text": None},
                {"feature_name": "bought", "value": 1.0, "value_text": None},
                {"feature_name": "last_action", "value": None, "value_text": "buy"},
                {"feature_name": "steps", "value": 7.0, "value_text": None},
            ]
        }
        with client(settings) as database:
            online = RedisOnlineStore(redis_url)
            [found] = Store(PROJECT, database, online).online({"user_id": [1]}, [ACTIVITY])
            online.close()
        assert (found["last_action"].value, found["steps"].value) == ("buy", 7)


def test_landed_rows_are_read_where_they_lie(tmp_path: Path, cli: Cli, redis_url: str) -> None:
    settings = settings_for(tmp_path, redis_url)
    count = "SELECT count(*) AS n, max(steps) AS steps, any_value(file) AS file FROM raw.events WHERE user_id = $user"
    row = {"last_action": "buy", "amount": 2.5, "steps": 7}
    at = datetime.now(UTC).isoformat()
    data = [{"entity_id": "1", "feature_name": f, "value": v, "event_timestamp": at} for f, v in row.items()]
    with on_a_thread(settings):
        assert ask(cli, query=count, params={"user": 1}) == {"data": [{"n": 0, "steps": None, "file": None}]}
        zone = LandingZone(settings.landing_dir)
        unseen = zone.open_upload("events", "open")
        write(cli, job_id="b", data=data)
        unseen.write_part(zone.read(zone.batches("events")[0]), first_row=0, end_row=1)
        for query in (count, count.replace("raw.events", '"raw" . "EVENTS"')):
            assert ask(cli, query=query, params={"user": 1}) == {
                "data": [{"n": 1, "steps": 7, "file": "events/job=b/00000000000000000000.parquet"}]
            }
        named = "SELECT column_name AS name FROM duckdb_columns() WHERE schema_name = 'raw'"
        columns = [one["name"] for one in ask(cli, query=named)["data"]]
        assert columns == ["sequence", "event_timestamp", "user_id", "action", "amount", "steps", "file"]


def test_what_cannot_be_written_is_answered_with_the_reason(tmp_path: Path, cli: Cli, redis_url: str) -> None:
    settings = settings_for(tmp_path, redis_url)
    entry = {"entity_id": "1", "feature_name": "steps", "value": 7, "event_timestamp": "2026-01-31T12:00:00Z"}
    with on_a_thread(settings):
        assert write(cli, job_id="a", data=entry) == {
            "job_id": "a",
            "error": "value 0: not a row of source 'events': action: missing",
            "retry": False,
        }
        assert "'bought' is computed" in write(cli, data={**entry, "feature_name": "bought", "value": True})["error"]
        assert "unknown field `sql`" in write(cli, job_id="b", data=entry, sql="DROP TABLE applied")["error"]
    assert LandingZone(settings.landing_dir).batches() == []


def test_services_may_be_kept_to_declared_queries(tmp_path: Path, cli: Cli, redis_url: str) -> None:
    settings = settings_for(tmp_path, redis_url, sql_token="secret")
    with on_a_thread(settings), client(settings) as database:
        assert database.query_arrow("SELECT 1 AS n").num_rows == 1
        assert ask(cli, name="largest", params={"entity_id": "1"}) == {"data": [{"steps": None}]}
        for token in ("", "guessed"):
            answer = ask(cli, query="SELECT 1 AS n", token=token)
            assert answer["error"].startswith("SQL of your own is not taken here without the token")


def test_what_json_has_no_number_for_is_a_text(
    tmp_path: Path, cli: Cli, redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the wire, on the command line, and as the feature server writes it."""
    sql = "SELECT 'NaN'::DOUBLE AS a, ['-inf'::DOUBLE] AS b, 0.5 AS c, NULL AS d"
    spelled = {"a": "NaN", "b": ["-Infinity"], "c": 0.5, "d": None}
    monkeypatch.setenv("FEATURESTORE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("FEATURESTORE_REDIS_URL", redis_url)
    with on_a_thread(settings_for(tmp_path, redis_url)):
        assert ask(cli, query=sql) == {"data": [spelled]}
        assert main(["sql", sql.replace("0.5", "0.5::DOUBLE"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [spelled]


def test_queries_are_answered_in_json(tmp_path: Path, cli: Cli, redis_url: str) -> None:
    with on_a_thread(settings_for(tmp_path, redis_url)):
        query = "SELECT $at AS at, $n + 1 AS n, $names AS names"
        params = {"at": {"timestamp": "2026-01-31T12:00:01Z"}, "n": 1, "names": ["a", "b"]}
        assert ask(cli, query=query, params=params) == {
            "data": [{"at": "2026-01-31T12:00:01Z", "n": 2, "names": ["a", "b"]}]
        }
        for wrong, reason in (
            ({"query": "DROP TABLE applied"}, "only SELECT and EXPLAIN are allowed here, not DROP"),
            ({"sql": "SELECT 1"}, "not a read request: give either `query` or `name`"),
            ({"name": "smallest"}, "there is no query 'smallest'; declared are largest"),
        ):
            assert ask(cli, **wrong) == {"error": reason}
