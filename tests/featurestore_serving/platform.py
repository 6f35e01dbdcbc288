"""A feature server for tests: a project, values in Redis, and the server on free ports."""

import http.client
import json
import socket
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import pyarrow as pa
from prometheus_client import CollectorRegistry

import featurestore as fs
from featurestore.definitions.dtypes import arrow_type
from featurestore.models.publish import ModelStore
from featurestore.online.redis_store import RedisOnlineStore
from featurestore.order import tie
from featurestore.process.daemon import Daemon
from featurestore.process.health import Health
from featurestore.settings import RedisSettings, ServerSettings, Settings
from featurestore_serving.server import FeatureServer
from tests.featurestore.models.examples import linear, scoring
from tests.featurestore.online.examples import tiles_of
from tests.services import eventually

USER = fs.Entity("user", key="user_id")
PAIR = fs.Entity("pair", key=("user_id", "shop"))
EVENTS = fs.KafkaSource(
    "events",
    timestamp="at",
    schema={"user_id": int, "shop": str, "score": float | None, "clicks": int | None, "is_new": bool, "city": str},
)
ACTIVITY = fs.FeatureView(
    "activity",
    USER,
    EVENTS,
    [
        fs.Feature("score", float, online=True),
        fs.Feature("clicks", int, online=True),
        fs.Feature("is_new", bool, online=True),
        fs.Feature("city", str, online=True, max_age="30d"),
        fs.Feature("hidden", int, "clicks"),
        fs.Aggregation("visits", "count", windows=("1h",), online=True),
    ],
)
VISITS = fs.FeatureView("visits_of", PAIR, EVENTS, [fs.Feature("last_score", float, "score", online=True)])
RATIOS = fs.DerivedView(
    "ratios",
    inputs=[ACTIVITY["score"], ACTIVITY["clicks"], VISITS["last_score"]],
    request={"amount": float, "note": str | None},
    features=[fs.Feature("per_click", float, "amount * score / nullif(clicks, 0)"), fs.Feature("noted", str, "note")],
)
CHANCE = fs.DerivedView(
    "chance", inputs=[RATIOS["per_click"]], features=[fs.Feature("doubled", float, "2 * per_click")]
)
RISK = fs.Model("risk", [ACTIVITY["clicks"], ACTIVITY["score"]])
PROJECT = fs.Project((ACTIVITY, VISITS, RATIOS, CHANCE), (RISK,))
REFERENCE = f"{__name__}:PROJECT"

NOW = datetime.now(UTC).replace(microsecond=123456)


def rows(
    view: fs.FeatureView, values: Mapping[str, Mapping[str, object]], *, age: timedelta = timedelta(0)
) -> pa.Table:
    """Rows of the log by entity id; each is a visit."""
    columns = {column.name: arrow_type(column.dtype) for column in view.columns}
    table = [
        {
            "entity_id": entity_id,
            "event_timestamp": NOW - age,
            "created_at": NOW,
            "sequence": number,
            "tie": tie("b"),
            **dict.fromkeys(columns),
            **({"visits": True} if "visits" in columns else {}),
            **one,
        }
        for number, (entity_id, one) in enumerate(values.items())
    ]
    time, whole = pa.timestamp("us"), pa.int64()
    head = {"entity_id": pa.string(), "event_timestamp": time, "created_at": time, "sequence": whole, "tie": whole}
    return pa.Table.from_pylist(table, pa.schema({**head, **columns}))


def fill(url: str) -> None:
    """Users 1 to 100, user 200 with old values, user 201 with odd numbers; pair (1, "a|b"); model `risk`."""
    store = RedisOnlineStore(url)
    users = {str(n): {"score": n / 4, "clicks": n, "is_new": n % 2 == 0, "city": f"city {n}"} for n in range(1, 101)}
    push(store, rows(ACTIVITY, users), 1)
    old = {"200": {"score": 1.0, "clicks": None, "is_new": True, "city": "Ur"}}
    push(store, rows(ACTIVITY, old, age=timedelta(days=31)), 2)
    odd = {"201": {"score": float("nan"), "clicks": 2**63 - 1, "is_new": False, "city": 'ü"null\n'}}
    push(store, rows(ACTIVITY, odd), 3)
    store.push(VISITS, rows(VISITS, {"1|a\\|b": {"last_score": 0.5}}), [4])
    store.close()
    models = ModelStore(url)
    models.publish(*scoring(RISK, "1", linear(10, 1)), 1)
    models.close()


def push(store: RedisOnlineStore, table: pa.Table, line: int) -> None:
    store.push(ACTIVITY, table, [line], tiles=tiles_of(ACTIVITY, table))


def settings(url: str, data_dir: Path, **server: object) -> Settings:
    given = {"address": "127.0.0.1:0", "grpc_address": "127.0.0.1:0", "drain_s": 0.0, "model_bytes": 0, **server}
    return Settings(
        data_dir=data_dir,
        project=REFERENCE,
        redis=RedisSettings(url=url, timeout_s=2.0),
        server=replace(ServerSettings(), **given),
    )


@dataclass
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return json.loads(self.body)["error"]["message"]


def ask(
    port: int, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Reply:
    """One request on a connection of its own; `_` in a header's name is a `-`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        plain = {name.replace("_", "-"): value for name, value in (headers or {}).items()}
        connection.request(method, path, body, plain)
        reply = connection.getresponse()
        return Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
    finally:
        connection.close()


@dataclass
class Running:
    """A server in this process."""

    service: FeatureServer
    daemon: Daemon
    health: Health
    thread: Thread = field(repr=False)

    @property
    def port(self) -> int:
        return self.service.port

    def post(self, body: object, **headers: str) -> Reply:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", "/v1/features", data, {"content-type": "application/json", **headers})

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, None, headers)

    def ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Reply:
        return ask(self.port, method, path, body, headers)


def silent(address: tuple[str, int]) -> socket.socket:
    """A connection that says what it is told, and no more."""
    client = socket.create_connection(address, timeout=30)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


@contextmanager
def running(settings: Settings, *, ready: bool = True, project: fs.Project = PROJECT) -> Generator[Running]:
    """The server, until the context ends; it has drained then."""
    health = Health()
    service = FeatureServer(settings, project, health=health, registry=CollectorRegistry())
    daemon = Daemon(service, health=health, idle_s=0.05, longest_retry_s=0.2)
    thread = Thread(target=daemon.run, name="loop")
    thread.start()
    try:
        eventually(lambda: service.port != 0 or not thread.is_alive())
        if ready:
            eventually(lambda: health.state == "ready")
        yield Running(service, daemon, health, thread)
    finally:
        daemon.request_stop()
        thread.join(30)
        assert not thread.is_alive()
