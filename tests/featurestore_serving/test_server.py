"""The server under pressure: slow and greedy clients, a lost Redis, many connections, its end."""

import contextlib
import http.client
import json
import re
import socket
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import redis

from featurestore_serving import http_server
from featurestore_serving.pb import serving_pb2 as pb
from featurestore_serving.pb import serving_pb2_grpc as pb_grpc
from tests.featurestore.online.faults import way_to
from tests.featurestore_serving.platform import Running, fill, running, settings, silent
from tests.services import eventually, redis_process

pytestmark = pytest.mark.services

ONE = {"features": ["activity"], "keys": {"user_id": [1]}}
BODY = json.dumps(ONE).encode()


def head(length: int) -> bytes:
    return (
        b"POST /v1/features HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        % length
    )


def ended(client: socket.socket) -> bool:
    with contextlib.suppress(ConnectionResetError):
        while client.recv(65_536):
            pass
    return True


# ---- Redis


def test_a_redis_that_is_lost_is_named_and_comes_back(tmp_path: Path) -> None:
    with redis_process(tmp_path / "redis") as first:
        fill(first.url)
        port = int(first.url.rpartition(":")[2].partition("/")[0])
        with running(settings(first.url, tmp_path)) as server:
            assert server.post(ONE).status == 200
            first.child.stop()
            lost = server.post(ONE)
            assert (lost.status, lost.json["error"]["reason"]) == (503, "UNAVAILABLE")
            assert int(lost.headers["retry-after"]) > 0
            assert re.search(rf"Redis does not answer at 127.0.0.1:{port}", lost.message)
            assert "for-tests" not in lost.message
            eventually(lambda: server.get("/ready").status == 503)
            assert "for-tests" not in server.get("/ready").body.decode()
            assert server.get("/health").status == 200
            with grpc.insecure_channel(f"127.0.0.1:{server.service.grpc_port}") as channel:
                column = pb.KeyColumn(integers=pb.Integers(values=[1]))
                asked = pb.GetFeaturesRequest(features=["score"], keys={"user_id": column})
                with pytest.raises(grpc.RpcError) as refused:
                    pb_grpc.FeaturesStub(channel).GetFeatures(asked, timeout=10)
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
                assert "for-tests" not in refused.value.details()
            with redis_process(tmp_path / "again", port=port) as second:
                fill(second.url)
                eventually(lambda: server.get("/ready").status == 200)
                assert server.post(ONE).json["rows"][0]["clicks"]["value"] == 1


def test_a_server_that_starts_before_redis_waits_for_it(tmp_path: Path) -> None:
    with redis_process(tmp_path / "redis") as there:
        url = there.url
    with running(settings(url, tmp_path), ready=False) as server:
        eventually(lambda: "does not answer" in server.health.note)
        assert server.get("/ready").status == 503
        assert server.post(ONE).status == 503


def test_a_redis_without_memory_is_read(filled: str, data: Path) -> None:
    with redis.Redis.from_url(filled) as client, running(settings(filled, data)) as server:
        client.config_set("maxmemory", 1)
        try:
            assert server.post(ONE).json["rows"][0]["clicks"]["value"] == 1
            assert server.get("/ready").status == 200
        finally:
            client.config_set("maxmemory", 0)


def test_a_value_that_is_damaged_is_an_error_and_no_value(filled: str, data: Path) -> None:
    with redis.Redis.from_url(filled) as client, running(settings(filled, data)) as server:
        raw = client.hget("fs:{user:1}", "score@1")
        client.hset("fs:{user:1}", "score@1", b"Z" + raw[1:])
        reply = server.post(ONE)
        assert (reply.status, "feature 'score'" in reply.message) == (422, True)
        assert server.post({**ONE, "keys": {"user_id": [2]}}).status == 200


# ---- too much at once


def test_requests_above_the_bound_are_told_to_come_back(filled: str, data: Path) -> None:
    arrived, go_on = threading.Semaphore(0), threading.Event()

    def held() -> bool:
        arrived.release()
        assert go_on.wait(20)
        return False

    with way_to(filled) as way, running(settings(way.url, data, threads=1, max_requests=2)) as server:
        with ThreadPoolExecutor(2) as pool:
            way.after(1, held)
            first = pool.submit(server.post, ONE)
            assert arrived.acquire(timeout=20)  # it may be the probe that is held; then the request waits behind it
            waiting = [pool.submit(server.post, ONE)]
            eventually(lambda: server.post(ONE, x_timeout_ms="50").status in {503, 504})
            eventually(lambda: "BUSY" in server.post(ONE, x_timeout_ms="50").body.decode() or first.done())
            go_on.set()
            assert {one.result(20).status for one in (first, *waiting)} <= {200, 503}
        eventually(lambda: server.post(ONE).status == 200)


def test_a_deadline_of_the_caller(filled: str, data: Path) -> None:
    go_on = threading.Event()
    with way_to(filled) as way, running(settings(way.url, data)) as server:
        for _ in range(3):
            way.after(1, lambda: not go_on.wait(20))
            reply = server.post(ONE, x_timeout_ms="60")
            if reply.status == 504:  # else the probe was held, and not the request
                break
        go_on.set()
        assert (reply.status, reply.json["error"]["reason"]) == (504, "LATE")
        assert "within 0.06 s" in reply.message


# ---- slow and greedy clients


@pytest.mark.parametrize(
    "said",
    [b"", b"POST /v1/fea", b"GET / HTTP/1.1\r\nhost: x\r\n"],
    ids=["nothing", "a part of a line", "a part of the head"],
)
def test_a_client_that_does_not_finish_a_head_is_cut_off(
    filled: str, data: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(http_server, "HEAD_S", 0.2)
    with running(settings(filled, data)) as server, silent(("127.0.0.1", server.port)) as client:
        client.sendall(said)
        assert ended(client)


def test_a_second_request_that_is_not_finished_is_cut_off(
    filled: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "HEAD_S", 0.5)
    with running(settings(filled, data)) as server, silent(("127.0.0.1", server.port)) as client:
        client.sendall(head(len(BODY)) + BODY)
        assert answer(client)[0] == 200
        client.sendall(b"POST /v1/fea")
        assert ended(client)


def test_a_body_that_does_not_come_is_given_up(filled: str, data: Path) -> None:
    with running(settings(filled, data, timeout_s=0.3)) as server, silent(("127.0.0.1", server.port)) as client:
        client.sendall(head(len(BODY)) + BODY[:10])
        reply = client.recv(65_536)
        assert reply.startswith(b"HTTP/1.1 408")
        assert ended(client)


def test_an_endless_head_is_cut_off(filled: str, data: Path) -> None:
    with running(settings(filled, data)) as server, silent(("127.0.0.1", server.port)) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(b"GET / HTTP/1.1\r\n")
            for number in range(10_000):
                client.sendall(b"x-%d: %s\r\n" % (number, b"y" * 100))
        assert ended(client)
        assert server.post(ONE).status == 200


def test_a_body_that_is_announced_too_large_is_refused_unread(server: Running) -> None:
    with silent(("127.0.0.1", server.port)) as client:
        client.sendall(head(10**12))
        assert client.recv(65_536).startswith(b"HTTP/1.1 413")
        assert ended(client)


def test_an_endless_body_without_a_length_is_refused(server: Running) -> None:
    with silent(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST /v1/features HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                client.sendall(b"10000\r\n" + b" " * 65_536 + b"\r\n")
        reply = b""
        with contextlib.suppress(ConnectionResetError):
            reply = client.recv(65_536)
        assert reply == b"" or reply.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "junk", [b"\0" * 100, b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
)
def test_what_is_no_http_is_refused(server: Running, junk: bytes) -> None:
    with silent(("127.0.0.1", server.port)) as client:
        client.sendall(junk)
        client.shutdown(socket.SHUT_WR)
        assert ended(client)
    assert server.post(ONE).status == 200


def test_clients_that_go_away_in_the_middle_do_no_harm(server: Running) -> None:
    for cut in range(1, len(head(len(BODY)) + BODY), 7):
        with silent(("127.0.0.1", server.port)) as client:
            client.sendall((head(len(BODY)) + BODY)[:cut])
    assert server.post(ONE).status == 200


def test_a_client_that_takes_nothing_is_cut_off(filled: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "UNSENT_S", 1.0)
    body = json.dumps({"features": ["activity"], "keys": {"user_id": [7] * 1_000}}).encode()
    with running(settings(filled, data)) as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.connect(("127.0.0.1", server.port))
        client.sendall((head(len(body)) + body) * 40)
        assert server.service._http is not None
        connections = server.service._http._server.server_state.connections
        eventually(lambda: len(connections) == 1)
        eventually(lambda: len(connections) == 0, within_s=60)
        assert server.post(ONE).status == 200


def test_replies_are_bounded(filled: str, data: Path) -> None:
    with running(settings(filled, data, max_values=12)) as server:
        assert server.post({**ONE, "keys": {"user_id": [1, 2]}}).status == 200
        reply = server.post({**ONE, "keys": {"user_id": [1, 2, 3]}})
        assert (reply.status, "3 rows of 5 features" in reply.message) == (413, True)


@contextlib.contextmanager
def without_a_message(server: Running, count: int) -> Generator[tuple[grpc.Channel, list[grpc.Future]]]:
    """Calls over gRPC that begin and say nothing."""
    go_on = threading.Event()

    def nothing() -> Iterator[bytes]:
        assert go_on.wait(60)
        yield from ()

    with grpc.insecure_channel(f"127.0.0.1:{server.service.grpc_port}") as channel:
        call = channel.stream_unary("/featurestore.v1.Features/GetFeatures")
        yield channel, [call.future(nothing(), timeout=60) for _ in range(count)]
        go_on.set()


def is_answered(channel: grpc.Channel) -> bool:
    asked = pb.GetFeaturesRequest(features=["clicks"], keys={"user_id": pb.KeyColumn(integers=pb.Integers(values=[7]))})
    with contextlib.suppress(grpc.RpcError):  # too many at once
        return list(pb_grpc.FeaturesStub(channel).GetFeatures(asked, timeout=20).columns[0].integers.values) == [7]
    return False


def test_calls_without_a_message_hold_up_nobody(filled: str, data: Path) -> None:
    with (
        running(settings(filled, data, threads=1, max_requests=8, timeout_s=60.0)) as server,
        without_a_message(server, 7) as (channel, silent_ones),
        contextlib.ExitStack() as opened,
    ):
        for _ in range(500):  # connections that do not even call
            opened.enter_context(silent(("127.0.0.1", server.service.grpc_port)))
        assert is_answered(channel)
        assert not any(one.done() for one in silent_ones)


def test_calls_without_a_message_are_cut(filled: str, data: Path) -> None:
    with (
        running(settings(filled, data, max_requests=8, timeout_s=0.5)) as server,
        without_a_message(server, 8) as (channel, silent_ones),
    ):
        eventually(lambda: all(one.done() for one in silent_ones))
        assert {one.code() for one in silent_ones} == {grpc.StatusCode.CANCELLED}
        eventually(lambda: is_answered(channel))


# ---- many connections


def test_thousands_of_connections_are_answered(filled: str, data: Path) -> None:
    http_server.allow_files(7_000)
    with running(settings(filled, data, max_connections=3_100)) as server, contextlib.ExitStack() as opened:
        clients = [opened.enter_context(silent(("127.0.0.1", server.port))) for _ in range(3_000)]
        for number, client in enumerate(clients):
            body = json.dumps({"features": ["clicks"], "keys": {"user_id": [number % 100 + 1]}}).encode()
            client.sendall(head(len(body)) + body)
        outcomes = [answer(client) for client in clients]
        assert {status for status, _ in outcomes} <= {200, 503}
        for number, (status, body) in enumerate(outcomes):
            if status == 200:
                assert json.loads(body)["rows"][0]["clicks"]["value"] == number % 100 + 1
        assert sum(status == 200 for status, _ in outcomes) >= 64
        more = [opened.enter_context(silent(("127.0.0.1", server.port))) for _ in range(200)]
        assert sum(closed_at_once(one) for one in more) >= 90


def answer(client: socket.socket) -> tuple[int, bytes]:
    reply = http.client.HTTPResponse(client)
    reply.begin()
    return reply.status, reply.read()


def closed_at_once(client: socket.socket) -> bool:
    client.settimeout(0.5)
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


# ---- the end


def test_requests_under_way_are_finished_when_the_server_stops(filled: str, data: Path) -> None:
    held, go_on = threading.Event(), threading.Event()

    def hold() -> bool:
        held.set()
        assert go_on.wait(20)
        return False

    with way_to(filled) as way, running(settings(way.url, data)) as server, ThreadPoolExecutor(1) as pool:
        way.after(1, hold)
        assert held.wait(20)
        way.after(1, hold)
        request = pool.submit(server.post, ONE)
        eventually(lambda: request.running())
        server.daemon.request_stop()
        go_on.set()
        assert request.result(20).status == 200
