"""The long form: lines of one key and time become one row of the source, from every format and in any order."""

import csv
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import featurestore as fs
from featurestore.definitions.long_form import LONG_FORM
from featurestore.landing.columns import Door
from featurestore.landing.zone import LandingZone
from featurestore.settings import Settings
from ingest.client import send_events, upload
from ingest.grpc.formats import read_csv, read_ndjson
from ingest.grpc.parquet import read_parquet
from ingest.grpc.pieces import Piece
from tests.ingest.grpc.conftest import serving

NOW = datetime(2026, 6, 1, tzinfo=UTC)
AT = "2026-01-02T03:04:05Z"

USER, PAIR = fs.Entity("user", key="user_id"), fs.Entity("pair", key=("user_id", "shop"))
SCORES = fs.UploadSource(
    "scores",
    timestamp="at",
    schema={"user_id": int, "shop": str | None, "income": float, "segment": str | None, "active": bool | None},
)
PROJECT = fs.Project(
    (
        fs.FeatureView(
            "score",
            USER,
            SCORES,
            [
                fs.Feature("income", float),
                fs.Feature("group", str, "segment"),
                fs.Feature("active", bool),
                fs.Feature("log_income", float, "ln(income)"),
            ],
        ),
        fs.FeatureView("pair_score", PAIR, SCORES, [fs.Feature("pair_income", float, "income")]),
    )
)
DOOR = Door.of(SCORES, PROJECT)

Cell = tuple[object, object, object, object]


def line(entity_id: object, feature_name: object, value: object, event_timestamp: object = AT) -> Cell:
    return entity_id, feature_name, value, event_timestamp


GOOD = [line("1", "income", 10.5), line("2", "income", 20), line("2", "group", 'a,"b'), line("1", "active", True)]
ROWS = [
    {"user_id": 1, "shop": None, "income": 10.5, "segment": None, "active": True},
    {"user_id": 2, "shop": None, "income": 20.0, "segment": 'a,"b', "active": None},
]


def ndjson(lines: Sequence[Cell]) -> list[bytes]:
    return [json.dumps(dict(zip(LONG_FORM, one, strict=True))).encode() for one in lines]


def read_lines(path: Path, lines: Sequence[Cell]) -> list[Piece]:
    path.write_bytes(b"\n".join(ndjson(lines)))
    return list(read_ndjson(path, DOOR, lambda: NOW))


def rows(pieces: list[Piece]) -> list[dict[str, object]]:
    table = pa.concat_tables(piece.rows for piece in pieces)
    return table.drop_columns(["sequence", "event_timestamp"]).to_pylist()


def dead(pieces: list[Piece]) -> list[tuple[int, str]]:
    return [(one.sequence, one.reason) for piece in pieces for one in piece.dead]


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    columns = dict(zip(LONG_FORM, zip(*GOOD, strict=True), strict=True))
    texts = [value if isinstance(value, str) else json.dumps(value) for value in columns["value"]]
    table = pa.table({**{name: list(column) for name, column in columns.items()}, "value": texts})
    pq.write_table(table, tmp_path / "a.parquet")
    with (tmp_path / "a.csv").open("w") as file:
        csv.writer(file).writerows([LONG_FORM, *zip(*table.to_pydict().values(), strict=True)])

    for pieces in (
        read_lines(tmp_path / "a.ndjson", GOOD),
        list(read_csv(tmp_path / "a.csv", DOOR, lambda: NOW)),
        list(read_parquet(tmp_path / "a.parquet", DOOR, lambda: NOW)),
    ):
        assert rows(pieces) == ROWS
        assert dead(pieces) == []
        assert [n for piece in pieces for n in piece.rows["sequence"].to_pylist()] == [0, 1]


def test_values_of_a_typed_column_are_what_they_are(tmp_path: Path) -> None:
    table = pa.table(
        {
            "entity_id": [1, 2, 3],
            "feature_name": ["income"] * 3,
            "value": [1.5, float("nan"), None],
            "event_timestamp": pa.array([1, 2, 3], pa.timestamp("ns", "UTC")),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")

    pieces = list(read_parquet(tmp_path / "a.parquet", DOOR, lambda: NOW))

    assert [row["income"] for row in rows(pieces)] == [1.5]
    assert dead(pieces) == [(1, "income: text, not a number"), (2, "income: missing")]


BAD = {
    "a computed feature": (line("1", "log_income", 1), "'log_income' is computed (ln(income)); send whole rows"),
    "an unknown feature": (line("1", "incme", 1), "no feature of source 'scores'; it has income, group"),
    "no text for a whole number": (line("x", "income", 1), "'x' is not the text of a whole number"),
    "a leading zero": (line("01", "income", 1), "'01' is not the text of a whole number"),
    "a number with a fraction": (line(1.0, "income", 1), "entity_id: a number, not"),
    "no key": (line(None, "income", 1), "entity_id: missing"),
    "half a key": (line("1", "pair_income", 1), "not the text of a key of 2 columns"),
    "a naive time": (line("1", "income", 1, "2026-01-02T03:04:05"), "event_timestamp: the time has no zone"),
    "no time": (line("1", "income", 1, None), "event_timestamp: missing"),
    "a number for the name": (line("1", 7, 1), "feature_name: a whole number, not text"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_a_dead_letter_of_its_own(name: str, tmp_path: Path) -> None:
    bad, reason = BAD[name]

    pieces = read_lines(tmp_path / "a.ndjson", [GOOD[0], bad, *GOOD[1:]])

    assert rows(pieces) == ROWS
    [(sequence, found)] = dead(pieces)
    assert sequence == 1
    assert reason in found
    [letter] = [one for piece in pieces for one in piece.dead]
    assert letter.raw == ndjson([bad])[0]


def test_a_row_that_lacks_a_column_or_has_one_twice_is_a_dead_letter(tmp_path: Path) -> None:
    lines = [line("1", "active", True), line("2", "income", 1), line("2", "income", 2), line("3", "income", 3)]

    pieces = read_lines(tmp_path / "a.ndjson", [*lines, line("4", "income", None), line("5", "income", "6")])

    assert [row["user_id"] for row in rows(pieces)] == [3]
    assert dead(pieces) == [
        (0, "income: missing"),
        (1, "income: stands twice in the record"),
        (4, "income: missing"),
        (5, "income: text, not a number"),
    ]
    assert b'"user_id":1' in pieces[-1].dead[0].raw


def test_a_row_is_of_one_time_however_it_is_written(tmp_path: Path) -> None:
    lines = [line(1, "income", 1, "2026-01-02T03:04:05+00:00"), line("1", "active", False, "2026-01-02T04:04:05+01:00")]

    assert rows(read_lines(tmp_path / "a.ndjson", lines)) == [ROWS[0] | {"income": 1.0, "active": False}]


def test_keys_of_several_columns_are_read_from_their_text(tmp_path: Path) -> None:
    [row] = rows(read_lines(tmp_path / "a.ndjson", [line("7|a\\|b", "pair_income", 1)]))

    assert (row["user_id"], row["shop"]) == (7, "a|b")


@given(st.permutations([*GOOD, *(line(str(n), "income", n) for n in range(3, 8))]))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=15)
def test_the_order_of_lines_does_not_matter(tmp_path: Path, lines: list[Cell]) -> None:
    found = sorted(rows(read_lines(tmp_path / "a.ndjson", lines)), key=lambda row: str(row["user_id"]))

    assert found[:2] == ROWS
    assert len(found) == 7


def test_lines_land_over_the_wire(settings: Settings, zone: LandingZone, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        f"{','.join(LONG_FORM)}\n" + "".join(f"{n},income,{n}.5,{AT}\n" for n in range(100)) + f"x,income,1,{AT}\n"
    )
    with serving(settings, PROJECT) as address:
        report = upload(path, "scores", address=address)
        events = send_events(ndjson([*GOOD, line("9", "active", True)]), "scores", address=address)

    assert (report.rows, report.dead_rows, report.rejected[0][0]) == (100, 1, 100)
    assert (events.rows, events.dead_rows, events.rejected) == (2, 1, ((4, "income: missing"),))
    assert sorted(zone.read(batch).num_rows for batch in zone.batches("scores")) == [2, 100]
