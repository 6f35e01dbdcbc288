"""The feature server against a minimal one on the same HTTP library that does HMGET and JSON; 50 features, 3 views.

    python -m benchmarks.server --requests 4000

CPU is that of the server's process, per request; Redis and the clients have their own.
"""

import argparse
import multiprocessing
import os
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

import msgspec
import psutil
import redis
import redis.asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.online_data import REFERENCE, filled_redis
from benchmarks.server_clients import (
    FIELDS,
    NAMES,
    Load,
    grpc_load,
    grpc_python_load,
    hmget_load,
    http_load,
    key,
)
from featurestore.settings import RedisSettings, ServerSettings, Settings
from featurestore_cli.stack.ports import Ports
from featurestore_serving.daemon import main as serve

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
        print(f"  {name:30} p50 {one.p50:8.0f} µs  p99 {one.p99:8.0f} µs  {cpu}")
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
            from_python = Way("the same, gRPC's Python client", grpc_python_load, grpc_port, ours)
            minimal = Way("minimal server, HTTP", http_load, raw_port, raw)
            plain = Way("redis-py, no server", hmget_load, url)
            sizes = {"entities": args.entities, "repeats": args.repeats}
            many = compare(
                f"{args.clients} clients, 1 entity",
                [http, over_grpc, minimal],
                clients=args.clients,
                count=args.requests,
                rows=1,
                **sizes,
            )
            one = compare(
                "1 client, 1 entity",
                [http, over_grpc, from_python, minimal, plain],
                clients=1,
                count=args.requests // 4,
                rows=1,
                **sizes,
            )
            batch = compare(
                "1 client, 100 entities",
                [http, over_grpc, from_python, minimal, plain],
                clients=1,
                count=max(20, args.requests // 40),
                rows=100,
                **sizes,
            )
    ratios = [many[way.name].cpu_us / many[minimal.name].cpu_us for way in (http, over_grpc)]
    print(
        f"CPU per request, {args.clients} clients: HTTP {ratios[0]:.2f}, gRPC {ratios[1]:.2f} times the minimal server "
        "(goal 2)"
    )
    for title, found, goal in (("1 entity", one, 8), ("100 entities", batch, 3)):
        ratios = [found[way.name].p50 / found[plain.name].p50 for way in (http, over_grpc, from_python)]
        print(
            f"p50 of 1 client, {title}: HTTP {ratios[0]:.2f}, gRPC {ratios[1]:.2f} times redis-py (goal {goal}); "
            f"with gRPC's Python client {ratios[2]:.2f}"
        )


if __name__ == "__main__":
    main()
