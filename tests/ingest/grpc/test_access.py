"""Who may send what: TLS, client certificates, tokens for sources; limits with their retry info; error details."""

import hashlib
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import google_crc32c
import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from featurestore.errors import SettingsError, TerminalError, TransientError
from featurestore.settings import GrpcSettings, Settings
from ingest.client import Tls, send_events, upload
from ingest.grpc.auth import Tokens
from ingest.grpc.daemon import SERVICE
from ingest.grpc.streams import Stream
from ingest.pb import ingest_pb2 as pb
from ingest.pb import ingest_pb2_grpc as pb_grpc
from tests.certificates import make_certificates
from tests.corpus.bad_files import HEADER, LINE, ndjson
from tests.ingest.grpc.conftest import serving, with_grpc
from tests.services import eventually

Details = dict[type, ErrorInfo | BadRequest | RetryInfo]


def refused(call: grpc.RpcError) -> tuple[grpc.StatusCode, Details]:
    """The code of a refusal, and its details by type."""
    assert isinstance(call, grpc.Call)
    status = rpc_status.from_call(call)
    assert status is not None
    found: Details = {}
    for packed in status.details:
        for kind in (ErrorInfo, BadRequest, RetryInfo):
            if packed.Is(kind.DESCRIPTOR):
                found[kind] = kind()
                packed.Unpack(found[kind])
    return call.code(), found


@contextmanager
def calling(settings: Settings) -> Generator[pb_grpc.IngestStub]:
    with serving(settings) as address, grpc.insecure_channel(address) as channel:
        yield pb_grpc.IngestStub(channel)


def request(upload_id: str = "a", *, size_bytes: int = 10, source: str = "profiles") -> pb.StartUploadRequest:
    return pb.StartUploadRequest(
        upload=pb.UploadReference(source=source, upload_id=upload_id),
        format=pb.FILE_FORMAT_CSV,
        size_bytes=size_bytes,
        sha256=bytes(32),
    )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def test_with_tls_only_who_shows_a_certificate_is_served(settings: Settings, certificates: Path) -> None:
    server = {
        "tls_certificate_path": str(certificates / "server.pem"),
        "tls_key_path": str(certificates / "server.key"),
    }
    ca, given = certificates / "ca.pem", threading.Event()
    given.set()
    own = Tls(ca_path=ca, certificate_path=certificates / "client.pem", key_path=certificates / "client.key")

    with serving(with_grpc(settings, **server)) as address:
        assert send_events([ndjson()], "profiles", address=address, tls=Tls(ca_path=ca)).rows == 1
        with pytest.raises(TransientError):
            upload(_file(certificates), "profiles", address=address, giving_up=given)
    with serving(with_grpc(settings, **server, tls_client_ca_path=str(ca))) as address:
        assert upload(_file(certificates), "profiles", address=address, tls=own).rows == 1
        with pytest.raises(TransientError):
            upload(_file(certificates), "profiles", address=address, tls=Tls(ca_path=ca), giving_up=given)


def _file(directory: Path) -> Path:
    path = directory / "a.csv"
    path.write_bytes(HEADER + LINE)
    return path


@pytest.mark.parametrize(
    "wrong",
    [{"tls_key_path": "x"}, {"tls_client_ca_path": "x"}, {"tls_key_path": "/none", "tls_certificate_path": "/none"}],
)
def test_certificates_that_are_not_there_are_said_at_the_start(settings: Settings, wrong: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="FEATURESTORE_GRPC_TLS"), serving(with_grpc(settings, **wrong)):
        pass


def test_a_token_is_for_its_sources(settings: Settings) -> None:
    tokens = "mine profiles events\nother events\n\nall *"
    with serving(with_grpc(settings, tokens=tokens, token="first")) as address:
        for token in ("mine", "all", "first"):
            assert send_events([ndjson()], "profiles", address=address, token=token).rows == 1
        with pytest.raises(TerminalError, match="token does not allow source 'profiles'"):
            send_events([ndjson()], "profiles", address=address, token="other")
        for token in ("", "*", "profiles", "mine profiles"):
            with pytest.raises(TerminalError, match="send the token"):
                send_events([ndjson()], "profiles", address=address, token=token)
        with grpc.insecure_channel(address) as channel:
            stub, sent = pb_grpc.IngestStub(channel), (("authorization", "Bearer other"),)
            reference = pb.UploadReference(source="profiles", upload_id="a")
            messages = iter([pb.UploadFileRequest(upload=reference)])
            for call in (
                lambda: stub.StartUpload(request(), timeout=10, metadata=sent),
                lambda: stub.GetUpload(reference, timeout=10, metadata=sent),
                lambda: stub.CancelUpload(reference, timeout=10, metadata=sent),
                lambda: stub.UploadFile(messages, timeout=10, metadata=sent),
            ):
                with pytest.raises(grpc.RpcError) as error:
                    call()
                assert refused(error.value)[0] == grpc.StatusCode.PERMISSION_DENIED


def test_a_token_without_sources_is_a_mistake() -> None:
    with pytest.raises(SettingsError, match="TOKEN SOURCE"):
        Tokens(GrpcSettings(tokens="alone"))


def test_what_the_service_can_do_is_told_only_if_set(settings: Settings) -> None:
    with serving(with_grpc(settings, reflection=1)) as address, grpc.insecure_channel(address) as channel:
        assert SERVICE in ProtoReflectionDescriptorDatabase(channel).get_services()
    with (
        serving(settings) as address,
        grpc.insecure_channel(address) as channel,
        pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"),
    ):
        ProtoReflectionDescriptorDatabase(channel).get_services()


def test_a_wrong_field_is_named(settings: Settings) -> None:
    with calling(settings) as stub:
        for wrong, field in (
            (request(size_bytes=0), "size_bytes"),
            (request("x" * 257), "upload_id"),
            (pb.StartUploadRequest(upload=request().upload, size_bytes=1), "format"),
        ):
            with pytest.raises(grpc.RpcError) as error:
                stub.StartUpload(wrong, timeout=10)
            code, details = refused(error.value)
            assert code == grpc.StatusCode.INVALID_ARGUMENT
            assert [one.field for one in details[BadRequest].field_violations] == [field]
            assert RetryInfo not in details
        with pytest.raises(grpc.RpcError) as error:
            stub.StartUpload(request(source="none"), timeout=10)
        assert refused(error.value)[1][ErrorInfo].reason == "DEFINITION"


def test_what_passes_says_when_to_try_again(settings: Settings) -> None:
    full = replace(settings, ingest=replace(settings.ingest, disk_reserve_bytes=1 << 60))
    for one, last in ((with_grpc(settings, max_open_uploads=1), request("b")), (full, request("c"))):
        with calling(one) as stub:
            if one is not full:
                stub.StartUpload(request("a"), timeout=10)
            with pytest.raises(grpc.RpcError) as error:
                stub.StartUpload(last, timeout=10)
            code, details = refused(error.value)
            assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert details[RetryInfo].retry_delay.ToTimedelta().total_seconds() > 0
    with calling(full) as stub, pytest.raises(grpc.RpcError) as error:
        stub.BatchEvents(pb.BatchEventsRequest(batch_id="x", source="profiles", records=[ndjson()]), timeout=10)
    assert refused(error.value)[1][ErrorInfo].reason == "NO_SPACE"


def test_a_file_that_is_too_large_is_not_tried_again(settings: Settings, tmp_path: Path) -> None:
    with serving(with_grpc(settings, max_upload_bytes=10)) as address, pytest.raises(TerminalError, match="at most 10"):
        upload(_file(tmp_path), "profiles", address=address)


def test_how_much_is_there_is_told_to_programs(settings: Settings) -> None:
    content = HEADER + LINE
    announced = request(size_bytes=len(content))
    announced.sha256 = hashlib.sha256(content).digest()
    opening, chunk = pb.UploadFileRequest(upload=announced.upload), pb.UploadFileRequest(chunk=pb.Chunk(offset=7))
    with calling(settings) as stub:
        stub.StartUpload(announced, timeout=10)
        with pytest.raises(grpc.RpcError) as error:
            stub.UploadFile(iter([opening, chunk]), timeout=10)

    assert refused(error.value)[1][ErrorInfo].metadata["committed_bytes"] == "0"


class Waiting:
    """A stream that names its upload, and then says nothing until it is told to end."""

    def __init__(self, stub: pb_grpc.IngestStub, upload_id: str) -> None:
        stub.StartUpload(request(upload_id), timeout=10)
        self.begun, self.end = threading.Event(), threading.Event()
        self.call = stub.UploadFile.future(self._messages(upload_id), timeout=60)

    def _messages(self, upload_id: str) -> Iterator[pb.UploadFileRequest]:
        yield pb.UploadFileRequest(upload=pb.UploadReference(source="profiles", upload_id=upload_id))
        self.begun.set()
        self.end.wait(60)


def test_one_sender_cannot_take_every_stream(settings: Settings) -> None:
    with calling(with_grpc(settings, peer_streams=2)) as stub:
        waiting = [Waiting(stub, name) for name in ("a", "b")]
        try:
            stub.StartUpload(request("c"), timeout=10)
            codes: list[grpc.StatusCode] = []
            while grpc.StatusCode.RESOURCE_EXHAUSTED not in codes:  # the others are on their way
                codes.append(stub.UploadFile.future(_opening("c"), timeout=10).code())
                assert len(codes) < 1_000
        finally:
            for one in waiting:
                one.end.set()
        assert all(one.call.result(30).committed_bytes == 0 for one in waiting)
        assert stub.UploadFile(_opening("c"), timeout=10).committed_bytes == 0


def _opening(upload_id: str) -> Iterator[pb.UploadFileRequest]:
    return iter([pb.UploadFileRequest(upload=pb.UploadReference(source="profiles", upload_id=upload_id))])


def test_a_silent_sender_is_cut_and_others_are_not(settings: Settings, tmp_path: Path) -> None:
    given = threading.Event()
    with (
        serving(with_grpc(settings, silence_s=0.0), stepping=True) as address,
        grpc.insecure_channel(address) as channel,
    ):
        one = Waiting(pb_grpc.IngestStub(channel), "a")
        assert one.call.code() == grpc.StatusCode.CANCELLED
        one.end.set()
    with serving(settings, stepping=True) as address:
        given.set()
        assert upload(_file(tmp_path), "profiles", address=address, giving_up=given).rows == 1


def test_a_sender_who_is_never_silent_but_slow_is_cut(settings: Settings) -> None:
    end = threading.Event()

    def trickle() -> Iterator[pb.UploadFileRequest]:
        yield pb.UploadFileRequest(upload=pb.UploadReference(source="profiles", upload_id="a"))
        for offset in range(1_000):
            end.wait(0.02)
            yield pb.UploadFileRequest(chunk=pb.Chunk(offset=offset, data=b"x", crc32c=google_crc32c.value(b"x")))

    slow = with_grpc(settings, silence_s=0.5, slowest_bytes_s=1e9)
    with serving(slow, stepping=True) as address, grpc.insecure_channel(address) as channel:
        stub = pb_grpc.IngestStub(channel)
        stub.StartUpload(request(size_bytes=2_000), timeout=10)
        call = stub.UploadFile.future(trickle(), timeout=60)
        assert call.code() == grpc.StatusCode.CANCELLED
        end.set()
        reference = pb.UploadReference(source="profiles", upload_id="a")
        eventually(lambda: stub.GetUpload(reference, timeout=10).committed_bytes > 0)  # what came is kept


@pytest.mark.parametrize(
    ("waits", "cut_at"),
    [
        ([(59, 0), (61, 0)], 120),  # what brings nothing gives no time
        ([(59, 1)] * 5, 118),
        ([(59, 100_000)] * 5, None),
        ([(100 / 1024, 100)] * 5_000, None),  # just fast enough
        ([(110 / 1024, 100)] * 10_000, 659.9),
    ],
)
def test_how_slow_a_sender_may_be(
    monkeypatch: pytest.MonkeyPatch, waits: list[tuple[float, int]], cut_at: float | None
) -> None:
    """Waits of some seconds for messages of some bytes, at 60 s of silence and 1,024 bytes a second."""
    clock, found = [0.0], list[float]()
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    stream = Stream(Peer(), "file", longest_s=60, slowest_bytes_s=1024)  # pyright: ignore[reportArgumentType]

    def messages() -> Iterator[pb.Chunk]:
        for wait_s, size_bytes in waits:
            clock[0] += wait_s
            if stream.is_too_slow:
                found.append(clock[0])
            yield pb.Chunk(data=b"x" * max(0, size_bytes - 2)) if size_bytes > 2 else pb.Chunk()

    for _ in stream.heard(messages()):
        clock[0] += 1_000  # while the service works, nobody is too slow
        assert not stream.is_too_slow
        clock[0] -= 1_000
    assert (found[0] if found else None) == (cut_at if cut_at is None else pytest.approx(cut_at, abs=1))


class Peer:
    """Of a call, who it is from."""

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"


@pytest.mark.parametrize("token", ["", "secret"])
def test_calls_whose_message_never_comes_do_not_hold_the_service(settings: Settings, token: str) -> None:
    end, path = threading.Event(), "/featurestore.v1.Ingest/BatchEvents"

    def nothing() -> Iterator[pb.BatchEventsRequest]:
        end.wait(60)
        yield from ()

    few = with_grpc(settings, threads=2, peer_streams=2, silence_s=0.2, token=token)
    with serving(few, stepping=True) as address, grpc.insecure_channel(address) as channel:
        call = channel.stream_unary(path, pb.BatchEventsRequest.SerializeToString, pb.BatchEventsResponse.FromString)
        waiting = [call.future(nothing(), timeout=60) for _ in range(6)]
        assert send_events([ndjson()], "profiles", address=address, token=token).rows == 1
        refusals = {grpc.StatusCode.UNAUTHENTICATED} if token else _CUT
        assert {one.code() for one in waiting} <= refusals
        end.set()


_CUT = {grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED}
