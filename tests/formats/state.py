"""A small store whose files are kept for each format, so that later versions prove that they can read them.

Nothing here may change: what was kept was made of it. `python -m tests.formats.state` keeps it in this version's
formats, once per release that changes one.
"""

import base64
import gzip
import json
import shutil
import sys
import tempfile
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import redis

import featurestore as fs
from featurestore.apply import apply_batches
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.database.migrations.run import FORMAT
from featurestore.landing.dead_letters import DeadLetter
from featurestore.landing.erasures import Erasures
from featurestore.landing.schema import landed_schema
from featurestore.landing.zone import LandingZone, job_chain, kafka_chain
from featurestore.offline.lake import Lake
from featurestore.offline.tables import schema_job
from featurestore.online.redis_store import RedisOnlineStore
from featurestore.recovery.erase import Holdings, carry_out, decide
from tests.services import redis_process

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATER = NOON + timedelta(days=8)
KEPT = Path(__file__).parent / str(FORMAT)

USER = fs.Entity("user", key="user_id")
EVENTS = fs.KafkaSource("events", timestamp="at", schema={"user_id": int, "action": str, "amount": float | None})
ACTIVITY = fs.FeatureView(
    "activity",
    USER,
    EVENTS,
    [
        fs.Feature("last_action", str, "action", online=True),
        fs.Feature("double_amount", float, "amount * 2", online=True),
        fs.Aggregation("spend", "sum", "amount", windows=("1h",), online=True),
    ],
    where="action <> 'ping'",
    expect=[fs.Expectation("amount >= 0")],
)
PROJECT = fs.Project((ACTIVITY,))

RECORDS = [(1, "view", 1.5), (2, "ping", None), (1, "buy", 20.0), (3, "buy", -1.0), (2, "view", None), (3, "view", 4.0)]
ERASED = "2"  # since format 2


def rows(first: int, count: int) -> pa.Table:
    records = [
        {
            "sequence": number - first,
            "event_timestamp": (NOON + timedelta(seconds=number)).replace(tzinfo=None),
            **dict(zip(EVENTS.schema, RECORDS[number], strict=True)),
        }
        for number in range(first, first + count)
    ]
    return pa.Table.from_pylist(records, schema=landed_schema(EVENTS))


def land(zone: LandingZone) -> None:
    """A batch of each kind: of a topic, of an upload, of a job."""
    for chain, first, dead in (
        (kafka_chain("events", "cluster", "topic", 0), 0, [DeadLetter(2, "no value", b"{}")]),
        (job_chain("events", "kept"), 4, []),
    ):
        zone.publish(
            chain,
            rows(first, 2),
            source="events",
            start=0,
            end=2 + len(dead),
            schema_version=EVENTS.schema_version,
            previous=None,
            dead=dead,
            now=lambda: NOON,
        )
    upload = zone.open_upload("events", "kept")
    upload.write_part(rows(2, 2), first_row=0, end_row=2)
    upload.publish(
        sha256="0" * 64,
        size_bytes=1,
        schema=landed_schema(EVENTS),
        schema_version=EVENTS.schema_version,
        dead=[],
        now=lambda: NOON,
    )


def dump(client: "redis.Redis") -> dict[str, Any]:
    """Every key: hashes, and sorted sets."""
    found: dict[str, Any] = {}
    for key in sorted(cast("list[bytes]", client.keys("*"))):
        match client.type(key):
            case b"hash":
                hashed = cast("dict[bytes, bytes]", client.hgetall(key))
                found[key.decode()] = {text(name): text(value) for name, value in sorted(hashed.items())}
            case b"zset":
                scored = cast("list[tuple[bytes, float]]", client.zrange(key, 0, -1, withscores=True))
                found[key.decode()] = [[text(member), score] for member, score in scored]
            case other:
                raise TypeError(f"{key!r} is a {other!r}")
    return found


def restore(client: "redis.Redis", found: dict[str, Any]) -> None:
    for key, value in found.items():
        if isinstance(value, dict):
            client.hset(key, mapping={octets(name): octets(one) for name, one in value.items()})
        else:
            client.zadd(key, {octets(member): score for member, score in value})


def text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def octets(value: str) -> bytes:
    return base64.b64decode(value)


def keep(directory: Path) -> None:
    """Make the state anew: two batches in the lake, what was applied after the move not, and a user erased."""
    shutil.rmtree(directory, ignore_errors=True)
    zone, lake = LandingZone(directory / "landing", Erasures(directory / "erasures")), Lake(directory / "lake")
    land(zone)
    batches = zone.batches()
    with tempfile.TemporaryDirectory() as scratch, redis_process(Path(scratch)) as server:
        file = Path(scratch) / "kept.duckdb"
        with (
            closing(EmbeddedDatabase(file, lake_dir=lake.root)) as database,
            closing(RedisOnlineStore(server.url)) as online,
        ):
            database.ensure(schema_job(PROJECT))
            apply_batches(ACTIVITY, batches[:2], zone, database, online)
            lake.move(database, ACTIVITY.name, LATER)
            apply_batches(ACTIVITY, batches[2:], zone, database, online)
            holdings = Holdings(project=PROJECT, zone=zone, database=database, lake=lake, online=online)
            carry_out(holdings, decide(holdings, USER, ERASED, LATER), progress=lambda *_: None)
        with gzip.open(directory / "features.duckdb.gz", "wb") as packed:
            packed.write(file.read_bytes())
        with redis.Redis.from_url(server.url, protocol=2) as client:
            (directory / "redis.json").write_text(json.dumps(dump(client), indent=1) + "\n")
    for lock in directory.glob("*/.*"):
        lock.unlink()


if __name__ == "__main__":
    keep(KEPT)
    sys.exit(0)
