"""The upload protocol over the wire: committed bytes, damage, other content, ids that are paths, limits, tokens."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import google_crc32c
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from featurestore.errors import TerminalError, TransientError
from featurestore.landing.zone import LandingZone
from featurestore.settings import Settings
from ingest.client import send_events, upload
from ingest.grpc.daemon import SERVICE
from ingest.grpc.uploads import safe_id
from ingest.pb import ingest_pb2 as pb
from ingest.pb import ingest_pb2_grpc as pb_grpc
from tests.corpus.bad_files import HEADER, LINE, ndjson, parquet
from tests.ingest.grpc.conftest import serving, with_grpc
from tests.services import eventually

FILE = HEADER + LINE * 1_000
REFERENCE = pb.UploadReference(source="profiles", upload_id="one")


@pytest.fixture
def stub(address: str) -> Iterator[pb_grpc.IngestStub]:
    with grpc.insecure_channel(address) as channel:
        yield pb_grpc.IngestStub(channel)


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
        ({"size_bytes": 1 << 60}, grpc.StatusCode.INVALID_ARGUMENT),
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


def test_a_stream_that_is_cut_keeps_what_it_sent(stub: pb_grpc.IngestStub) -> None:
    start(stub)
    arrived = threading.Event()

    def cut() -> Iterator[pb.UploadFileRequest]:
        yield pb.UploadFileRequest(upload=REFERENCE)
        yield chunk(0, FILE[:100])
        arrived.wait(10)

    stream = stub.UploadFile.future(cut(), timeout=20)
    until_refused(stub)
    stream.cancel()
    arrived.set()

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


def test_only_who_sends_the_token_is_served(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(FILE)
    with serving(with_grpc(settings, token="s3cret")) as address, grpc.insecure_channel(address) as channel:
        for token in ("", "wrong", "s3cret ", "S3CRET"):
            with pytest.raises(TerminalError, match="token"):
                upload(path, "profiles", address=address, token=token)
            with pytest.raises(TerminalError, match="token"):
                send_events([b"{}"], "profiles", address=address, token=token)
        assert upload(path, "profiles", address=address, token="s3cret").rows == 1_000
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert health.status == health_pb2.HealthCheckResponse.SERVING


def test_a_wrong_file_is_refused_whole_and_forgotten(address: str, settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"user_id,income\n1,2\n")

    with pytest.raises(TerminalError, match="needs the column as_of, debt, age_years"):
        upload(path, "profiles", address=address)

    assert list((settings.data_dir / "uploads").iterdir()) == []


def test_bad_rows_are_named_and_kept(address: str, zone: LandingZone, tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"\n".join([ndjson(), ndjson(income="x"), ndjson(), ndjson(user_id=None)]))

    report = upload(path, "profiles", address=address)

    assert (report.rows, report.dead_rows) == (2, 2)
    assert report.rejected == ((1, "income: text, not a number"), (3, "user_id: missing"))
    letters = [letter for _, letter in zone.dead_letters("profiles")]
    assert [(one.sequence, one.raw) for one in letters] == [(1, ndjson(income="x")), (3, ndjson(user_id=None))]


def test_a_file_of_bad_rows_only_is_landed_too(address: str, zone: LandingZone, tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"{}\n" * 250)

    report = upload(path, "profiles", address=address)

    assert (report.rows, report.dead_rows, len(report.rejected)) == (0, 250, 100)
    [batch] = zone.batches("profiles")
    assert (batch.rows, batch.dead_rows) == (0, 250)


def test_large_files_are_split_into_parts(settings: Settings, zone: LandingZone, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet(path, 100_000)
    with serving(with_grpc(settings, part_rows=30_000)) as address:
        report = upload(path, "profiles", address=address)

    batches = sorted(zone.batches("profiles"), key=lambda batch: batch.start)
    assert report.parts == len(batches) > 2
    assert [batch.start for batch in batches] == [0, *(batch.end for batch in batches[:-1])]
    assert len({batch.created_at for batch in batches}) == 1
    sequences = [n for batch in batches for n in zone.read(batch)["sequence"].to_pylist()]
    assert sequences == list(range(100_000))


def test_a_clock_that_is_wrong_lands_nothing(address: str, zone: LandingZone, stub: pb_grpc.IngestStub) -> None:
    records = [ndjson(as_of="2150-01-01T00:00:00Z")] * 20

    with pytest.raises(grpc.RpcError, match="clock") as error:
        stub.BatchEvents(pb.BatchEventsRequest(batch_id="x", source="profiles", records=records), timeout=10)

    assert refusal(error) == grpc.StatusCode.UNAVAILABLE
    assert zone.batches("profiles") == []


def test_a_batch_lands_once_and_names_every_rejected_record(address: str, zone: LandingZone) -> None:
    records = [{"user_id": 1, "income": 1, "debt": 2.5, "age_years": 3, "as_of": "2026-01-02T03:04:05Z"}, b"x"] * 150

    first = send_events(records, "profiles", address=address, batch_id="b")
    again = send_events(records, "profiles", address=address, batch_id="b")

    assert first == again
    assert (first.rows, first.dead_rows, len(first.rejected)) == (150, 150, 150)
    assert len(zone.batches("profiles")) == 1
    with pytest.raises(TerminalError, match="other content"):
        send_events(records[:-1], "profiles", address=address, batch_id="b")


def test_records_cut_elsewhere_are_another_batch(address: str) -> None:
    send_events([b"ab", b"c"], "profiles", address=address, batch_id="b")

    with pytest.raises(TerminalError, match="other content"):
        send_events([b"a", b"bc"], "profiles", address=address, batch_id="b")


@pytest.mark.parametrize("records", [[], [b"{}"] * 10_001])
def test_a_batch_is_bounded(address: str, records: list[bytes]) -> None:
    with pytest.raises(TerminalError, match="1 to 10000"):
        send_events(records, "profiles", address=address)


def test_the_client_says_when_nobody_answers(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(FILE)
    giving_up = threading.Event()
    giving_up.set()

    with pytest.raises(TransientError, match="given up"):
        upload(path, "profiles", address="127.0.0.1:1", giving_up=giving_up)


def test_the_client_refuses_a_file_whose_format_it_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    path.write_bytes(b"x")

    with pytest.raises(TerminalError, match=r"ends in \.parquet"):
        upload(path, "profiles", address="127.0.0.1:1")
    with pytest.raises(FileNotFoundError):
        upload(tmp_path / "none.csv", "profiles", address="127.0.0.1:1")


def test_the_client_goes_on_when_the_service_comes_back(settings: Settings, zone: LandingZone, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(HEADER + LINE * 100_000)
    halfway = threading.Event()

    def progress(done: int, total: int) -> None:
        if done > total // 2:
            halfway.set()

    with ThreadPoolExecutor(1) as pool:
        with serving(settings) as address:
            sending = pool.submit(upload, path, "profiles", address=address, progress=progress)
            assert halfway.wait(20)
        with serving(with_grpc(settings, address=address)):
            assert sending.result(60).rows == 100_000

    assert zone.batches("profiles")[0].rows == 100_000
