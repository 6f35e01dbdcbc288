"""The feature server against a minimal one on the same HTTP library that does HMGET and JSON; 50 features, 3 views.

    python -m benchmarks.server --requests 4000

CPU is that of the server's process, per request; Redis and the clients have their own.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import signal
import statistics
import struct
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import grpc
import msgspec
import psutil
import redis
import redis.asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.online_data import ALL, REFERENCE, filled_redis
from featurestore.online.keys import Keys, value_field
from featurestore.settings import RedisSettings, ServerSettings, Settings
from featurestore_cli.stack.ports import Ports
from featurestore_serving.daemon import main as serve
from featurestore_serving.pb import serving_pb2 as pb
from featurestore_serving.pb import serving_pb2_grpc as pb_grpc

NAMES = [one.name for view in ALL for one in view.online_features]
FIELDS = [value_field(name, 1) for name in NAMES]
PREFIX = Keys().entity_prefix("user")


def key(user: int) -> bytes:
    return PREFIX + b"%d}" % user


# ---- the servers


def raw_server(url: str, port: int) -> None:
    client = redis.asyncio.Redis.from_url(url, max_connections=64)
    value = struct.Struct(">5xd").unpack

    async def features(request: Request) -> Response:
        asked = msgspec.json.decode(await request.body())
        users = asked["keys"]["user_id"]
        if len(users) == 1:
            replies = [await client.hmget(key(users[0]), FIELDS)]
        else:
            pipe = client.pipeline(transaction=False)
            for user in users:
                pipe.hmget(key(user), FIELDS)
            replies = await pipe.execute()
        rows = [{name: value(raw)[0] for name, raw in zip(NAMES, reply, strict=True)} for reply in replies]
        return Response(msgspec.json.encode({"rows": rows}), media_type="application/json")

    async def health(_: Request) -> Response:
        return Response(b"{}")

    app = Starlette(routes=[Route("/v1/features", features, methods=["POST"]), Route("/ready", health)])
    uvicorn.run(app, port=port, loop="uvloop", http="httptools", log_config=None, access_log=False, lifespan="off")


def our_server(settings: Settings) -> None:
    raise SystemExit(serve(settings))


@contextmanager
def process(target: Callable[..., None], *arguments: object, port: int) -> Generator[int]:
    """A server in a process of its own; yields its pid."""
    one = multiprocessing.get_context("spawn").Process(target=target, args=arguments, daemon=True)
    one.start()
    try:
        deadline = time.monotonic() + 60
        while not _answers(port):
            assert one.is_alive(), "the server has ended"
            assert time.monotonic() < deadline, "the server does not answer"
        yield one.pid or 0
    finally:
        os.kill(one.pid or 0, signal.SIGTERM)
        one.join(30)


def _answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/ready", timeout=1) as reply:
            return reply.status == 200
    except (URLError, OSError):
        return False


# ---- the clients


@dataclass(frozen=True)
class Load:
    """What a run found: latencies in microseconds, requests per second."""

    latencies: Sequence[float]
    seconds: float

    @property
    def p50(self) -> float:
        return statistics.median(self.latencies)

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.latencies, n=100)[98] if len(self.latencies) > 100 else max(self.latencies)


def http_request(users: Sequence[int]) -> bytes:
    body = json.dumps({"features": [view.name for view in ALL], "keys": {"user_id": users}}).encode()
    return (
        b"POST /v1/features HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
        % (
            len(body),
            body,
        )
    )


async def http_client(port: int, requests: Sequence[bytes], latencies: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
    for request in requests:
        start = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        latencies.append((time.perf_counter() - start) * 1e6)
    writer.close()


def http_load(port: int, clients: int, count: int, rows: int, entities: int) -> Load:
    dice = random.Random(1)
    requests = [[http_request(users(dice, rows, entities)) for _ in range(count // clients)] for _ in range(clients)]
    latencies: list[float] = []

    async def run() -> None:
        await asyncio.gather(*(http_client(port, some, latencies) for some in requests))

    start = time.perf_counter()
    asyncio.run(run())
    return Load(latencies, time.perf_counter() - start)


def grpc_load(port: int, _: int, count: int, rows: int, entities: int) -> Load:
    dice, latencies = random.Random(1), list[float]()
    begin = time.perf_counter()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = pb_grpc.FeaturesStub(channel)
        for _ in range(count):
            column = pb.KeyColumn(integers=pb.Integers(values=users(dice, rows, entities)))
            request = pb.GetFeaturesRequest(features=[view.name for view in ALL], keys={"user_id": column})
            start = time.perf_counter()
            stub.GetFeatures(request, timeout=10)
            latencies.append((time.perf_counter() - start) * 1e6)
    return Load(latencies, time.perf_counter() - begin)


def hmget_load(url: str, _: int, count: int, rows: int, entities: int) -> Load:
    """redis-py alone: what a client does that needs no server."""
    dice, latencies = random.Random(1), list[float]()
    begin = time.perf_counter()
    with redis.Redis.from_url(url) as client:
        for _ in range(count):
            asked = [key(user) for user in users(dice, rows, entities)]
            start = time.perf_counter()
            if rows == 1:
                client.hmget(asked[0], FIELDS)
            else:
                pipe = client.pipeline(transaction=False)
                for one in asked:
                    pipe.hmget(one, FIELDS)
                pipe.execute()
            latencies.append((time.perf_counter() - start) * 1e6)
    return Load(latencies, time.perf_counter() - begin)


def users(dice: random.Random, rows: int, entities: int) -> list[int]:
    return [dice.randrange(entities) for _ in range(rows)]


# ---- the comparison


@dataclass(frozen=True)
class Way:
    name: str
    load: Callable[..., Load]
    at: object
    pid: int = 0


@dataclass(frozen=True)
class Found:
    p50: float
    p99: float
    cpu_us: float


def compare(
    title: str, ways: Sequence[Way], *, clients: int, count: int, rows: int, entities: int, repeats: int
) -> dict[str, Found]:
    """Run the ways in turns; medians over the turns."""
    turns: dict[str, list[Found]] = {way.name: [] for way in ways}
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for turn in range(repeats + 1):  # the first warms up
            for way in ways:
                before = _cpu_s(way.pid)
                load = pool.apply(way.load, (way.at, clients, count, rows, entities))
                used = (_cpu_s(way.pid) - before) / len(load.latencies) * 1e6
                if turn:
                    turns[way.name].append(Found(load.p50, load.p99, used))
    print(title)
    found = {
        name: Found(*(statistics.median(getattr(one, field) for one in all_) for field in ("p50", "p99", "cpu_us")))
        for name, all_ in turns.items()
    }
    for name, one in found.items():
        cpu = f"{one.cpu_us:8.0f} µs CPU, {1e6 / one.cpu_us:6.0f} requests per core-second" if one.cpu_us else ""
        print(f"  {name:28} p50 {one.p50:8.0f} µs  p99 {one.p99:8.0f} µs  {cpu}")
    return found


def _cpu_s(pid: int) -> float:
    if not pid:
        return 0.0
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=4_000)
    parser.add_argument("--entities", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    ports = Ports()
    raw_port, port, grpc_port = ports.take(), ports.take(), ports.take()
    server = replace(ServerSettings(), address=f"127.0.0.1:{port}", grpc_address=f"127.0.0.1:{grpc_port}", drain_s=0.0)
    with tempfile.TemporaryDirectory() as home, filled_redis(args.entities) as url:
        settings = Settings(
            data_dir=Path(home), project=REFERENCE, redis=RedisSettings(url=url), server=server, log_level="WARNING"
        )
        with process(raw_server, url, raw_port, port=raw_port) as raw, process(our_server, settings, port=port) as ours:
            http = Way("feature server, HTTP", http_load, port, ours)
            over_grpc = Way("feature server, gRPC", grpc_load, grpc_port, ours)
            minimal = Way("minimal server, HTTP", http_load, raw_port, raw)
            plain = Way("redis-py, no server", hmget_load, url)
            sizes = {"entities": args.entities, "repeats": args.repeats}
            many = compare(
                f"{args.clients} clients, 1 entity",
                [http, minimal],
                clients=args.clients,
                count=args.requests,
                rows=1,
                **sizes,
            )
            one = compare(
                "1 client, 1 entity",
                [http, over_grpc, minimal, plain],
                clients=1,
                count=args.requests // 4,
                rows=1,
                **sizes,
            )
            batch = compare(
                "1 client, 100 entities",
                [http, over_grpc, minimal, plain],
                clients=1,
                count=max(20, args.requests // 40),
                rows=100,
                **sizes,
            )
    ratio = many[http.name].cpu_us / many[minimal.name].cpu_us
    print(f"CPU per request, {args.clients} clients: {ratio:.2f} times the minimal server (goal 2)")
    for title, found, goal in (("1 entity", one, 8), ("100 entities", batch, 3)):
        ratios = [found[way.name].p50 / found[plain.name].p50 for way in (http, over_grpc)]
        print(f"p50 of 1 client, {title}: HTTP {ratios[0]:.2f}, gRPC {ratios[1]:.2f} times redis-py (goal {goal})")


if __name__ == "__main__":
    main()
