"""Clients of the feature server that cost little, so that what is measured is the server; and gRPC's own for Python."""

import asyncio
import json
import random
import statistics
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc
import redis

from benchmarks.online_data import ALL
from featurestore.online.keys import Keys, value_field
from featurestore_serving.pb import serving_pb2 as pb
from featurestore_serving.pb import serving_pb2_grpc as pb_grpc

NAMES = [one.name for view in ALL for one in view.online_features]
FIELDS = [value_field(name, 1) for name in NAMES]
PREFIX = Keys().entity_prefix("user")


def key(user: int) -> bytes:
    return PREFIX + b"%d}" % user


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


Client = Callable[[int, Sequence[bytes], list[float]], Awaitable[None]]


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
    return asyncio_load(http_client, http_request, port, clients, count, rows, entities)


def asyncio_load(
    client: Client, request: Callable[[Sequence[int]], bytes], port: int, clients: int, count: int, *sizes: int
) -> Load:
    """Several clients in this process, each with a connection of its own."""
    dice = random.Random(1)
    requests = [[request(users(dice, *sizes)) for _ in range(count // clients)] for _ in range(clients)]
    latencies: list[float] = []

    async def run() -> None:
        await asyncio.gather(*(client(port, some, latencies) for some in requests))

    start = time.perf_counter()
    asyncio.run(run())
    return Load(latencies, time.perf_counter() - start)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


DATA, HEADERS, RESET, SETTINGS, GO_AWAY, WINDOW = 0, 1, 3, 4, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
WIDE = 2**31 - 1  # the largest window
HELLO = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, WIDE))
    + frame(WINDOW, 0, 0, struct.pack(">I", WIDE - 0xFFFF))
)


def literal(first: bytes, *texts: bytes) -> bytes:
    return first + b"".join(bytes([len(text)]) + text for text in texts)


HEAD = b"\x83\x86" + b"".join(  # POST, http
    (
        literal(b"\x04", b"/featurestore.v1.Features/GetFeatures"),
        literal(b"\x01", b"x"),
        literal(b"\x00", b"content-type", b"application/grpc"),
        literal(b"\x00", b"te", b"trailers"),
    )
)


def grpc_request(users: Sequence[int]) -> bytes:
    column = pb.KeyColumn(integers=pb.Integers(values=users))
    request = pb.GetFeaturesRequest(features=[view.name for view in ALL], keys={"user_id": column})
    message = request.SerializeToString()
    return b"\0" + len(message).to_bytes(4, "big") + message


async def grpc_client(port: int, requests: Sequence[bytes], latencies: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
    writer.write(HELLO)
    for number, request in enumerate(requests):
        stream = 2 * number + 1
        start = time.perf_counter()
        writer.write(frame(HEADERS, END_HEADERS, stream, HEAD) + frame(DATA, END_STREAM, stream, request))
        got, kind, flags, payload = 0, DATA, 0, b""
        while kind != HEADERS or not flags & END_STREAM:
            head = await reader.readexactly(9)
            kind, flags = head[3], head[4]
            payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
            assert kind not in {RESET, GO_AWAY}, payload
            if kind == DATA:
                got += len(payload)
            elif kind == SETTINGS and not flags & ACK:
                writer.write(frame(SETTINGS, ACK, 0))
        assert got, payload
        latencies.append((time.perf_counter() - start) * 1e6)
    writer.close()


def grpc_load(port: int, clients: int, count: int, rows: int, entities: int) -> Load:
    return asyncio_load(grpc_client, grpc_request, port, clients, count, rows, entities)


def grpc_python_load(port: int, _: int, count: int, rows: int, entities: int) -> Load:
    """With gRPC's client for Python."""
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
