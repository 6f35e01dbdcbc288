"""The upload protocol over the wire: committed bytes, damage, other content, ids that are paths, limits, tokens."""

import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import google_crc32c
import grpc
import pyarrow as pa
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from featurestore.errors import TerminalError
from featurestore.landing.disk import TEMPORARY
from featurestore.landing.zone import LandingZone
from featurestore.settings import Settings
from ingest.grpc.daemon import SERVICE
from ingest.grpc.spool import safe_id
from ingest.pb import ingest_pb2 as pb
from ingest.pb import ingest_pb2_grpc as pb_grpc
from tests.corpus.bad_files import HEADER, LINE
from tests.ingest.grpc.conftest import serving, with_grpc
from tests.services import eventually

FILE = HEADER + LINE * 1_000
REFERENCE = pb.UploadReference(source="profiles", upload_id="one")


def start(stub: pb_grpc.IngestStub, content: bytes = FILE, reference: pb.UploadReference = REFERENCE) -> pb.Upload:
    request = pb.StartUploadRequest(
        upload=reference,
        format=pb.FILE_FORMAT_CSV,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).digest(),
    )
    return stub.StartUpload(request, timeout=10)


def chunk(offset: int, data: bytes, *, crc32c: int | None = None) -> pb.UploadFileRequest:
    crc32c = google_crc32c.value(data) if crc32c is None else crc32c
    return pb.UploadFileRequest(chunk=pb.Chunk(offset=offset, data=data, crc32c=crc32c))


def send(
    stub: pb_grpc.IngestStub, *chunks: pb.UploadFileRequest, reference: pb.UploadReference = REFERENCE
) -> pb.Upload:
    return stub.UploadFile(iter([pb.UploadFileRequest(upload=reference), *chunks]), timeout=10)


def until_refused(stub: pb_grpc.IngestStub) -> grpc.StatusCode:
    """Send nothing until the service says that another stream has begun."""
    codes: list[grpc.StatusCode] = []

    def refused() -> bool:
        call = stub.UploadFile.future(iter([pb.UploadFileRequest(upload=REFERENCE)]), timeout=10)
        codes.append(call.code())
        return codes[-1] != grpc.StatusCode.OK

    eventually(refused)
    return codes[-1]


def refusal(error: pytest.ExceptionInfo[grpc.RpcError]) -> grpc.StatusCode:
    assert isinstance(error.value, grpc.Call)
    return error.value.code()


def test_a_file_is_landed_when_all_of_it_is_there(stub: pb_grpc.IngestStub, zone: LandingZone) -> None:
    assert start(stub).committed_bytes == 0
    assert zone.batches("profiles") == []

    reply = send(stub, chunk(0, FILE[:100]), chunk(100, FILE[100:]))

    assert reply.state == pb.UPLOAD_STATE_LANDED
    assert (reply.receipt.rows, reply.receipt.dead_rows, reply.receipt.parts) == (1_000, 0, 1)
    [batch] = zone.batches("profiles")
    assert batch.rows == zone.read(batch).num_rows == 1_000


def test_what_was_sent_is_kept_and_the_rest_goes_on(stub: pb_grpc.IngestStub) -> None:
    start(stub)
    assert send(stub, chunk(0, FILE[:5_000])).committed_bytes == 5_000
    assert start(stub).committed_bytes == 5_000
    assert stub.GetUpload(REFERENCE, timeout=10).committed_bytes == 5_000

    assert send(stub, chunk(5_000, FILE[5_000:])).state == pb.UPLOAD_STATE_LANDED


def test_another_offset_than_the_committed_size_is_refused(stub: pb_grpc.IngestStub) -> None:
    start(stub)
    send(stub, chunk(0, FILE[:5_000]))

    for offset in (0, 4_999, 5_001):
        with pytest.raises(grpc.RpcError, match="5000 bytes are there") as error:
            send(stub, chunk(offset, FILE[offset:]))
        assert refusal(error) == grpc.StatusCode.FAILED_PRECONDITION
    assert start(stub).committed_bytes == 5_000


def test_what_came_before_a_damaged_chunk_is_kept(stub: pb_grpc.IngestStub) -> None:
    start(stub)

    with pytest.raises(grpc.RpcError, match="damaged") as error:
        send(stub, chunk(0, FILE[:100]), chunk(100, FILE[100:200], crc32c=1))

    assert refusal(error) == grpc.StatusCode.DATA_LOSS
    assert start(stub).committed_bytes == 100


def test_a_file_that_is_not_the_announced_one_is_not_landed(stub: pb_grpc.IngestStub, zone: LandingZone) -> None:
    start(stub)
    other = FILE.replace(b"30", b"31")

    with pytest.raises(grpc.RpcError, match="sha256 differs") as error:
        send(stub, chunk(0, other))

    assert refusal(error) == grpc.StatusCode.INVALID_ARGUMENT
    assert zone.batches("profiles") == []
    assert start(stub).committed_bytes == 0


def test_a_refused_upload_may_begin_anew_while_it_is_being_removed(
    stub: pb_grpc.IngestStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong, replies, remove = b"user_id\n1\n", list[pb.Upload](), shutil.rmtree

    def slowly(path: Path, *, ignore_errors: bool) -> None:
        monkeypatch.undo()
        (path / "committed").unlink()
        replies.append(start(stub, wrong))
        remove(path, ignore_errors=ignore_errors)

    start(stub, wrong)
    monkeypatch.setattr(shutil, "rmtree", slowly)
    for _ in range(2):
        with pytest.raises(grpc.RpcError, match="needs the column"):
            send(stub, chunk(0, wrong))

    assert [(one.state, one.committed_bytes) for one in replies] == [(pb.UPLOAD_STATE_OPEN, 0)]


def test_a_file_longer_than_announced_is_refused(stub: pb_grpc.IngestStub) -> None:
    start(stub)

    with pytest.raises(grpc.RpcError, match="longer than") as error:
        send(stub, chunk(0, FILE + b"x"))

    assert refusal(error) == grpc.StatusCode.INVALID_ARGUMENT


def test_the_same_content_again_gives_the_same_receipt(stub: pb_grpc.IngestStub, zone: LandingZone) -> None:
    start(stub)
    first = send(stub, chunk(0, FILE))

    assert start(stub) == first
    assert send(stub, chunk(0, FILE)) == first
    assert stub.GetUpload(REFERENCE, timeout=10) == first
    assert len(zone.batches("profiles")) == 1


@pytest.mark.parametrize("landed", [False, True])
def test_other_content_under_the_same_id_is_refused(stub: pb_grpc.IngestStub, landed: bool) -> None:
    start(stub)
    if landed:
        send(stub, chunk(0, FILE))

    with pytest.raises(grpc.RpcError, match="other content") as error:
        start(stub, FILE + LINE)

    assert refusal(error) == grpc.StatusCode.ALREADY_EXISTS


def test_a_cancelled_upload_leaves_nothing_and_stays_cancelled(stub: pb_grpc.IngestStub, settings: Settings) -> None:
    start(stub)
    send(stub, chunk(0, FILE[:100]))

    assert stub.CancelUpload(REFERENCE, timeout=10).state == pb.UPLOAD_STATE_CANCELLED

    assert list((settings.data_dir / "uploads").iterdir()) == []
    assert stub.GetUpload(REFERENCE, timeout=10).state == pb.UPLOAD_STATE_CANCELLED
    with pytest.raises(grpc.RpcError, match="cancelled") as error:
        start(stub)
    assert refusal(error) == grpc.StatusCode.ALREADY_EXISTS


def test_what_has_landed_cannot_be_cancelled(stub: pb_grpc.IngestStub, zone: LandingZone) -> None:
    start(stub)
    send(stub, chunk(0, FILE))

    assert stub.CancelUpload(REFERENCE, timeout=10).state == pb.UPLOAD_STATE_LANDED
    assert zone.batches("profiles")[0].rows == 1_000


@pytest.mark.parametrize(
    "upload_id", ["../../etc/passwd", "/", "..", "a/b", "a b", "é", "\0", "con\n", "x" * 65, "~", "."]
)
def test_an_id_is_never_a_path(stub: pb_grpc.IngestStub, settings: Settings, upload_id: str) -> None:
    reference = pb.UploadReference(source="profiles", upload_id=upload_id)
    start(stub, reference=reference)

    assert send(stub, chunk(0, FILE), reference=reference).upload.upload_id == upload_id

    inside = {"landing", "uploads"}
    assert {path.name for path in settings.data_dir.iterdir()} == inside
    assert {path.name for path in settings.data_dir.parent.iterdir()} == {"data"}
    [directory] = (settings.landing_dir / "profiles").iterdir()
    assert directory.name == f"upload={safe_id(upload_id)}"


def test_ids_that_are_hashed_do_not_meet_plain_ones() -> None:
    assert len(safe_id("a/b")) > 64
    assert safe_id("a/b") != safe_id("a\\b")
    for wrong in ("", "x" * 257):
        with pytest.raises(TerminalError, match="1 to 256"):
            safe_id(wrong)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"upload": pb.UploadReference(source="nothing", upload_id="x")}, grpc.StatusCode.NOT_FOUND),
        ({"upload": pb.UploadReference(source="../profiles", upload_id="x")}, grpc.StatusCode.NOT_FOUND),
        ({"upload": pb.UploadReference(source="events", upload_id="x")}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"upload": pb.UploadReference(source="profiles")}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"format": pb.FILE_FORMAT_UNSPECIFIED}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"format": 77}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"size_bytes": 0}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"size_bytes": -1}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"size_bytes": 1 << 60}, grpc.StatusCode.RESOURCE_EXHAUSTED),
        ({"sha256": b"x"}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_wrong_announcements_are_refused(
    stub: pb_grpc.IngestStub, settings: Settings, changes: dict[str, object], code: grpc.StatusCode
) -> None:
    good = {"upload": REFERENCE, "format": pb.FILE_FORMAT_CSV, "size_bytes": 1, "sha256": bytes(32)}

    with pytest.raises(grpc.RpcError) as error:
        stub.StartUpload(pb.StartUploadRequest(**(good | changes)), timeout=10)  # pyright: ignore[reportArgumentType]

    assert refusal(error) == code
    assert not (settings.data_dir / "uploads").exists()


def test_streams_that_do_not_keep_to_the_protocol_are_refused(stub: pb_grpc.IngestStub) -> None:
    start(stub)
    opening = pb.UploadFileRequest(upload=REFERENCE)

    for requests in ([], [chunk(0, FILE)], [pb.UploadFileRequest()], [opening, opening]):
        with pytest.raises(grpc.RpcError) as error:
            stub.UploadFile(iter(requests), timeout=10)
        assert refusal(error) == grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError, match="deadline") as error:
        stub.UploadFile(iter([opening]))
    assert refusal(error) == grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError, match="StartUpload") as error:
        send(stub, chunk(0, FILE), reference=pb.UploadReference(source="profiles", upload_id="other"))
    assert refusal(error) == grpc.StatusCode.NOT_FOUND


def test_one_stream_at_a_time_sends_an_upload(stub: pb_grpc.IngestStub) -> None:
    start(stub)
    more = threading.Event()

    def slowly() -> Iterator[pb.UploadFileRequest]:
        yield pb.UploadFileRequest(upload=REFERENCE)
        yield chunk(0, FILE[:100])
        more.wait(10)

    first = stub.UploadFile.future(slowly(), timeout=20)
    try:
        assert until_refused(stub) == grpc.StatusCode.ABORTED
    finally:
        more.set()
    assert first.result(10).committed_bytes == 100


def test_a_stream_that_is_cut_keeps_what_came_of_it(stub: pb_grpc.IngestStub, settings: Settings) -> None:
    start(stub)
    [data] = (settings.data_dir / "uploads").glob("*/data")
    cut = threading.Event()

    def chunks() -> Iterator[pb.UploadFileRequest]:
        yield pb.UploadFileRequest(upload=REFERENCE)
        yield chunk(0, FILE[:100])
        cut.wait(20)

    stream = stub.UploadFile.future(chunks(), timeout=20)
    eventually(lambda: data.stat().st_size == 100)
    stream.cancel()
    cut.set()

    eventually(lambda: stub.GetUpload(REFERENCE, timeout=10).committed_bytes == 100)


def test_too_many_open_uploads_wait(settings: Settings) -> None:
    with serving(with_grpc(settings, max_open_uploads=2)) as address, grpc.insecure_channel(address) as channel:
        stub = pb_grpc.IngestStub(channel)
        for name in ("a", "b"):
            start(stub, reference=pb.UploadReference(source="profiles", upload_id=name))

        with pytest.raises(grpc.RpcError, match="too many") as error:
            start(stub, reference=pb.UploadReference(source="profiles", upload_id="c"))
        assert refusal(error) == grpc.StatusCode.RESOURCE_EXHAUSTED

        start(stub, reference=pb.UploadReference(source="profiles", upload_id="a"))
        stub.CancelUpload(pb.UploadReference(source="profiles", upload_id="a"), timeout=10)
        start(stub, reference=pb.UploadReference(source="profiles", upload_id="c"))


def test_a_disk_below_its_reserve_takes_nothing_new(settings: Settings) -> None:
    full = replace(settings, ingest=replace(settings.ingest, disk_reserve_bytes=1 << 60))
    with serving(full) as address, grpc.insecure_channel(address) as channel:
        with pytest.raises(grpc.RpcError, match="MiB left") as error:
            start(pb_grpc.IngestStub(channel))
        assert refusal(error) == grpc.StatusCode.RESOURCE_EXHAUSTED
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=10)
        assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_what_nobody_goes_on_with_is_forgotten_and_its_id_is_free_again(settings: Settings, zone: LandingZone) -> None:
    orphan, batch, fresh = (
        pb.UploadReference(source="profiles", upload_id=name) for name in ("orphan", "batch", "fresh")
    )
    with serving(settings) as address, grpc.insecure_channel(address) as channel:
        for reference in (REFERENCE, orphan):
            start(pb_grpc.IngestStub(channel), reference=reference)
            send(pb_grpc.IngestStub(channel), chunk(0, FILE[:100]), reference=reference)
    # As if it had been killed while it landed one of them, and while it landed two batches of events.
    for name in ("orphan", "batch", "fresh"):
        landing = zone.open_upload("profiles", name)
        landing.write_part(pa.table({"event_timestamp": [0]}), first_row=0, end_row=1)
        (settings.landing_dir / landing.chain / f".part-x.y{TEMPORARY}").touch()
    empty = settings.landing_dir / "profiles" / "upload=empty"
    empty.mkdir()
    os.utime(empty, (0, 0))
    (settings.data_dir / "uploads" / ".removed").mkdir()
    long_ago = [settings.data_dir / "uploads", *(settings.landing_dir / "profiles").glob("upload=[!f]*")]
    for path in (path for directory in long_ago for path in directory.rglob("*")):
        os.utime(path, (0, 0))

    with serving(settings) as address, grpc.insecure_channel(address) as channel:
        stub = pb_grpc.IngestStub(channel)
        assert start(stub).committed_bytes == 0
        assert send(stub, chunk(0, FILE)).state == pb.UPLOAD_STATE_LANDED
        for reference in (orphan, batch):
            assert stub.GetUpload(reference, timeout=10).state == pb.UPLOAD_STATE_CANCELLED
            left = settings.landing_dir / "profiles" / f"upload={reference.upload_id}"
            assert [path.name for path in left.iterdir()] == ["manifest.json"]
        assert start(stub, reference=fresh).state == pb.UPLOAD_STATE_OPEN
        assert not empty.exists()
        assert {path.name for path in (settings.data_dir / "uploads").iterdir()} == {"profiles.fresh"}
