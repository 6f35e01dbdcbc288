"""`featurestore upload`: what it says of a file that lands, of its rejected rows, and of one that is refused."""

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from featurestore.settings import GrpcSettings, IngestSettings, Settings
from featurestore_cli.main import main
from tests.corpus.bad_files import HEADER, LINE
from tests.ingest.grpc.conftest import serving

FILE = HEADER + LINE * 3 + LINE.replace(b"10.0", b"n/a") + LINE.replace(b"1,", b",", 1)


@pytest.fixture(autouse=True)
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    settings = Settings(
        data_dir=tmp_path / "data",
        grpc=GrpcSettings(address="127.0.0.1:0", tokens="mine profiles"),
        ingest=IngestSettings(disk_reserve_bytes=0),
    )
    with serving(settings) as address:
        monkeypatch.setenv("FEATURESTORE_DATA_DIR", str(settings.data_dir))
        monkeypatch.setenv("FEATURESTORE_GRPC_ADDRESS", address)
        monkeypatch.setenv("FEATURESTORE_GRPC_TOKEN", "mine")
        yield


def test_what_landed_and_what_was_rejected_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "profiles.csv"
    path.write_bytes(FILE)

    for _ in range(2):  # the second time nothing is landed, and the same is said
        assert main(["upload", str(path), "--source", "profiles", "--id", "monday"]) == 0
        said = capsys.readouterr()
        assert said.out.splitlines() == [
            "3 rows landed as monday in 1 part",
            "2 rows rejected (featurestore dead-letters show monday)",
            "  row 3        income: text, not a number",
            "  row 4        user_id: missing",
        ]
        assert "100%" in said.err


def test_programs_read_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "profiles.csv"
    path.write_bytes(FILE)

    assert main(["upload", str(path), "--source", "profiles", "--json"]) == 0

    said = json.loads(capsys.readouterr().out)
    assert (said["rows"], said["dead_rows"], said["rejected"][0]) == (3, 2, [3, "income: text, not a number"])


def test_a_file_of_no_known_format_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "profiles.txt"
    path.write_bytes(FILE)
    assert main(["upload", str(path), "--source", "profiles"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert ".parquet, .csv, .ndjson" in line


def test_why_a_file_is_refused_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "profiles.csv"
    path.write_bytes(b"user_id,income\n1,2\n")
    for words, why in (
        ([str(path), "--source", "profiles"], "needs the column as_of, debt, age_years; the file has user_id, income"),
        ([str(path), "--source", "events"], "your token does not allow source 'events'"),
        ([str(tmp_path / "none.csv"), "--source", "profiles"], "there is no file"),
        ([str(tmp_path), "--source", "profiles"], "there is no file"),
    ):
        assert main(["upload", *words]) == 1
        [line] = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error: ")]
        assert why in line
