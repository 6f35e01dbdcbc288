"""`featurestore training-set`: files in, files and a receipt out; the same again; what changed."""

import argparse
import json
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import featurestore as fs
from featurestore.errors import FeatureStoreError, TerminalError
from featurestore.settings import Settings
from featurestore.testing.memory import MemoryStore
from featurestore_cli.commands import training_set

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)

USER = fs.Entity("user", key="user_id")
SALES = fs.KafkaSource("sales", timestamp="at", schema={"user_id": int, "amount": float})
VIEW = fs.FeatureView(
    "sales_by_user",
    USER,
    SALES,
    [fs.Feature("last_amount", float, "amount"), fs.Aggregation("sold", "count", windows=("1h",))],
)
PROJECT = fs.Project((VIEW,))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MemoryStore:
    """The store that the command finds."""
    store = MemoryStore(PROJECT)
    store.send(SALES, {"user_id": 1, "at": NOON, "amount": 5.0}, created_at=NOON + SECOND)

    @contextmanager
    def connect(*_: object) -> Generator[MemoryStore]:
        yield store

    monkeypatch.setattr(training_set, "connect", connect)
    monkeypatch.setattr(training_set, "load_project", lambda _: PROJECT)
    times = pa.array([NOON, NOON - SECOND], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"user_id": [1, 1], "event_timestamp": times}), tmp_path / "labels.parquet")
    monkeypatch.chdir(tmp_path)
    return store


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    training_set.add_arguments(parser)
    return training_set.run(parser.parse_args(words), Settings())


def build(*words: str, out: str = "train.parquet") -> int:
    return run("build", "--spine", "labels.parquet", "--features", "sales_by_user", "--out", out, *words)


@pytest.mark.usefixtures("store")
def test_build_writes_the_set_and_its_receipt(capsys: pytest.CaptureFixture[str]) -> None:
    assert build() == 0
    table = pq.ParquetFile("train.parquet").read()
    assert table.column_names == ["user_id", "event_timestamp", "last_amount", "sold_1h"]
    assert table["sold_1h"].to_pylist() == [1, 0]
    receipt = json.loads(Path("train.receipt.json").read_text())
    assert receipt["features"] == ["last_amount", "sold_1h"]
    assert receipt["spine_file"] == "labels.parquet"
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "spine     2 rows, 1 entity (user)"
    assert said[1] == "inputs    sales_by_user v1 (1 rows)"
    assert said[3].startswith("train.parquet       2 rows  4 columns  sha256 ")
    assert said[4] == "train.receipt.json  featurestore training-set reproduce train.receipt.json"
    assert not list(Path().glob(".*"))  # no temporary file is left


@pytest.mark.usefixtures("store")
def test_known_at_as_text() -> None:
    build("--known-at", "row")
    assert pq.read_table("train.parquet")["last_amount"].to_pylist() == [None, None]
    build("--known-at", "2026-05-04T12:00:01Z")
    assert pq.read_table("train.parquet")["last_amount"].to_pylist() == [5.0, None]


@pytest.mark.usefixtures("store")
def test_csv_in_and_out() -> None:
    Path("labels.csv").write_text("user_id,event_timestamp\n1,2026-05-04T12:00:00Z\n2,2026-05-04T12:00:00Z\n")
    assert run("build", "--spine", "labels.csv", "--features", "last_amount", "--out", "train.csv") == 0
    assert [line.split(",")[-1] for line in Path("train.csv").read_text().splitlines()] == ['"last_amount"', "5", ""]


def test_it_is_made_again_after_late_data(store: MemoryStore, capsys: pytest.CaptureFixture[str]) -> None:
    build()
    before = Path("train.parquet").read_bytes()
    store.send(SALES, {"user_id": 1, "at": NOON - SECOND, "amount": 2.0})
    Path("elsewhere").mkdir()
    assert run("reproduce", "train.receipt.json", "--out", "elsewhere/again.parquet") == 0
    assert Path("elsewhere/again.parquet").read_bytes() == before
    capsys.readouterr()
    assert run("diff", "train.receipt.json") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "3 cells changed in 2 rows: last_amount 1, sold_1h 2"
    assert [line.split()[-3:] for line in said[2:]] == [
        ["sold_1h", "1", "2"], ["last_amount", "–", "2"], ["sold_1h", "0", "1"],
    ]  # fmt: skip
    run("diff", "train.receipt.json", "--json")
    assert json.loads(capsys.readouterr().out)["changed"]["sold_1h"] == 2


@pytest.mark.usefixtures("store")
def test_nothing_changed(capsys: pytest.CaptureFixture[str]) -> None:
    build("--json")
    assert json.loads(capsys.readouterr().out)["rows"] == 2
    run("diff", "train.receipt.json")
    assert capsys.readouterr().out == "nothing changed in 2 rows\n"


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--features", "last_amoun"], "did you mean 'last_amount'"),
        (["--known-at", "yesterday"], "is not none, row or a time"),
        (["--known-at", "2026-05-04"], "has no time zone"),
        (["--spine", "no.parquet"], "no.parquet"),
        (["--spine", "labels.txt"], "a spine is a .parquet or .csv file"),
        (["--out", "train.xlsx"], "written as .parquet or .csv"),
        (["--out", "nowhere/train.parquet"], "nowhere/train.parquet"),
        (["--time", "at"], "has no column 'at'"),
    ],
)
def test_what_cannot_be_done_is_said(words: list[str], message: str) -> None:
    with pytest.raises(FeatureStoreError, match=message):
        build(*words)


@pytest.mark.usefixtures("store")
def test_receipts_that_are_none() -> None:
    with pytest.raises(TerminalError, match=r"none\.json: No such file"):
        run("reproduce", "none.json")
    Path("bad.json").write_text("{}")
    with pytest.raises(TerminalError, match="not the receipt"):
        run("diff", "bad.json")


def test_without_a_spine_file_it_asks(store: MemoryStore, tmp_path: Path) -> None:
    rows: Any = pq.read_table("labels.parquet")
    (tmp_path / "made.receipt.json").write_bytes(store.training_set(rows, [VIEW]).receipt.to_json())
    with pytest.raises(TerminalError, match="give --spine FILE"):
        run("reproduce", "made.receipt.json")
    assert run("reproduce", "made.receipt.json", "--spine", "labels.parquet") == 0
