"""Files and small batches sent with `ingest.client`: what lands, what is reported, when it goes on or gives up."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from featurestore.errors import TerminalError, TransientError
from featurestore.landing.zone import LandingZone
from featurestore.settings import Settings
from ingest.client import send_events, upload
from ingest.grpc.spool import Announced
from ingest.grpc.uploads import Status, Uploads
from ingest.pb import ingest_pb2 as pb
from ingest.pb import ingest_pb2_grpc as pb_grpc
from tests.corpus.bad_files import HEADER, LINE, ndjson, parquet
from tests.ingest.grpc.conftest import serving, with_grpc

FILE = HEADER + LINE * 1_000
REFERENCE = pb.UploadReference(source="profiles", upload_id="one")


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


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"user_id,income\n1,2\n", "needs the column as_of, debt, age_years"),
        (HEADER + LINE * 40_000 + b"1" * (5 << 20), "longer than"),  # behind rows that were written
    ],
)
def test_a_wrong_file_is_refused_whole_and_forgotten(
    settings: Settings, tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)

    with serving(with_grpc(settings, part_rows=10_000)) as address, pytest.raises(TerminalError, match=reason):
        upload(path, "profiles", address=address)

    assert list((settings.data_dir / "uploads").iterdir()) == []
    assert list(settings.landing_dir.glob("profiles/*")) == []


def test_an_upload_that_is_gone_between_two_calls_begins_anew(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when another sender of the same file is told meanwhile that it is refused: each is told."""
    path, begin = tmp_path / "a.csv", Uploads.start
    path.write_bytes(b"user_id,income\n1,2\n")

    def begin_and_lose(self: Uploads, announced: Announced) -> Status:
        status = begin(self, announced)
        monkeypatch.undo()
        [spool] = (settings.data_dir / "uploads").iterdir()
        shutil.rmtree(spool)
        return status

    monkeypatch.setattr(Uploads, "start", begin_and_lose)
    with serving(settings) as address, pytest.raises(TerminalError, match="needs the column"):
        upload(path, "profiles", address=address)


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

    assert isinstance(error.value, grpc.Call)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE
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
