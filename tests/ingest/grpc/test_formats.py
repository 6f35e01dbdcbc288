"""Files → pieces: the same rows from every format, bad rows by themselves, wrong files whole."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import featurestore as fs
from featurestore.landing.columns import Door
from featurestore.landing.schema import landed_schema
from ingest.grpc.formats import read_csv, read_ndjson
from ingest.grpc.pages import PACKED_BYTES, PARTS, UNPACKED_BYTES, VALUES
from ingest.grpc.parquet import read_parquet
from ingest.grpc.pieces import FileRefusedError, Piece
from tests.corpus.bad_files import AS_OF, BAD_LINES, BAD_VALUES, HEADER, LINE, REFUSED, ndjson, parquet
from tests.corpus.lying_pages import with_lie
from tests.ingest.grpc.conftest import PROFILES, PROJECT

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DOOR = Door.of(PROFILES, PROJECT)
READERS = {".parquet": read_parquet, ".csv": read_csv, ".ndjson": read_ndjson}


def read(path: Path) -> list[Piece]:
    return list(READERS[path.suffix](path, DOOR, lambda: NOW))


def rows(pieces: list[Piece]) -> pa.Table:
    return pa.concat_tables(piece.rows for piece in pieces)


def dead(pieces: list[Piece]) -> Iterator[tuple[int, str]]:
    return ((one.sequence, one.reason) for piece in pieces for one in piece.dead)


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", 2)
    (tmp_path / "a.csv").write_bytes(HEADER + LINE + LINE.replace(b"1,", b"2,", 1))
    (tmp_path / "a.ndjson").write_bytes(ndjson() + b"\r\n\n" + ndjson(user_id=2))

    tables = [rows(read(tmp_path / f"a{suffix}")) for suffix in READERS]

    assert all(table.schema == landed_schema(PROFILES) for table in tables)
    assert tables[0].to_pylist() == tables[1].to_pylist() == tables[2].to_pylist()
    assert tables[0].to_pylist() == [
        {"sequence": i, "event_timestamp": AS_OF.replace(tzinfo=None), "user_id": i + 1}
        | {"income": 10.0, "debt": 5.0, "age_years": 30, "note": None}
        for i in range(2)
    ]


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_file_is_refused_whole(name: str, tmp_path: Path) -> None:
    suffix, content, reason = REFUSED[name]
    path = tmp_path / f"file{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)

    with pytest.raises(FileRefusedError, match=reason):
        read(path)


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_a_dead_letter_of_its_own(name: str, tmp_path: Path) -> None:
    suffix, line, reason = BAD_LINES[name]
    good = LINE if suffix == ".csv" else ndjson() + b"\n"
    path = tmp_path / f"file{suffix}"
    path.write_bytes((HEADER if suffix == ".csv" else b"") + good + line + good)

    [piece] = read(path)

    assert piece.rows["sequence"].to_pylist() == [0, 2]
    [letter] = piece.dead
    assert letter.sequence == 1
    assert reason in letter.reason
    assert letter.raw == line.rstrip(b"\n")


@pytest.mark.parametrize("name", BAD_VALUES)
def test_a_bad_value_is_a_dead_letter_of_its_own(name: str, tmp_path: Path) -> None:
    column, values, reason = BAD_VALUES[name]
    parquet(tmp_path / "file.parquet", 3, **{column: values})

    [piece] = read(tmp_path / "file.parquet")

    assert piece.rows["sequence"].to_pylist() == [0, 2]
    [letter] = piece.dead
    assert (letter.sequence, reason in letter.reason) == (1, True)
    assert json.loads(letter.raw)["age_years"] == 30


def test_text_of_a_parquet_file_is_checked(tmp_path: Path) -> None:
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 1, 2, 5)))
    invalid = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"a\xffa\x00b")])
    parquet(tmp_path / "file.parquet", 3, note=invalid)

    [piece] = read(tmp_path / "file.parquet")

    assert piece.rows["note"].to_pylist() == ["a"]
    assert [letter.reason for letter in piece.dead] == ["note: not valid UTF-8", "note: holds a NUL character"]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int8(), pa.string()), pa.string_view()])
def test_any_arrow_text_is_text(kind: pa.DataType, tmp_path: Path) -> None:
    parquet(tmp_path / "file.parquet", 3, note=pa.array(["a", None, "ü"]).cast(kind))

    assert rows(read(tmp_path / "file.parquet"))["note"].to_pylist() == ["a", None, "ü"]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_any_arrow_time_with_a_zone_is_a_time(unit: str, tmp_path: Path) -> None:
    parquet(tmp_path / "file.parquet", 1, as_of=pa.array([AS_OF], pa.timestamp(unit, "Europe/Berlin")))

    assert rows(read(tmp_path / "file.parquet"))["event_timestamp"].to_pylist() == [AS_OF.replace(tzinfo=None)]


def test_a_dictionary_that_makes_gigabytes_of_a_small_file_is_read_in_slices(tmp_path: Path) -> None:
    path, count, size = tmp_path / "bomb.parquet", 2_000, 100_000
    parquet(path, count, note=pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), ["x" * size]))
    assert path.stat().st_size < 1 << 20

    largest = seen = 0
    for piece in read_parquet(path, DOOR, lambda: NOW):
        largest, seen = max(largest, piece.rows.nbytes), seen + piece.rows.num_rows

    assert seen == count
    assert largest < 64 << 20


def test_undeclared_columns_are_dropped_and_counted(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", 2, more=pa.array([{"x": 1}, None]))
    (tmp_path / "a.csv").write_bytes(b"more," + HEADER + b"1," + LINE + b"1," + LINE)
    (tmp_path / "a.ndjson").write_bytes(ndjson(more=1) + b"\n" + ndjson(more=[]))

    for suffix in READERS:
        assert [piece.unknown_members for piece in read(tmp_path / f"a{suffix}")] == [2]


def test_a_quoted_cell_may_span_lines(tmp_path: Path) -> None:
    header, text = HEADER.replace(b"\n", b",note\n"), b'"a\n""b"", c"'
    (tmp_path / "a.csv").write_bytes(header + LINE.replace(b"\n", b"," + text + b"\n") + LINE.replace(b"\n", b",\n"))

    assert rows(read(tmp_path / "a.csv"))["note"].to_pylist() == ['a\n"b", c', None]


def test_a_quote_that_is_never_closed_does_not_swallow_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(HEADER + LINE.replace(b"10.0", b'"10.0') + LINE * 10_000)

    pieces = read(tmp_path / "a.csv")

    letters = list(dead(pieces))
    assert len(letters) == 1
    assert letters[0][1].startswith("not CSV")
    assert rows(pieces).num_rows > 5_000


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + HEADER + LINE)
    (tmp_path / "a.ndjson").write_bytes(b"\xef\xbb\xbf" + ndjson())

    assert rows(read(tmp_path / "a.csv")).num_rows == rows(read(tmp_path / "a.ndjson")).num_rows == 1


def test_long_files_come_in_pieces_that_follow_one_another(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(HEADER + (LINE + b"bad\n") * 20_000)

    pieces = read(tmp_path / "a.csv")

    assert len(pieces) > 1
    assert [piece.first_row for piece in pieces] == [0, *(piece.end_row for piece in pieces[:-1])]
    assert pieces[-1].end_row == 40_000
    assert [n for n, _ in dead(pieces)] == list(range(1, 40_000, 2))


CELLS = {
    "user_id": ["1", "-7", "0", "01", "+1", "1.0", "", " 1", "9223372036854775807", "9223372036854775808", '"5"', "٣"],
    "income": ["1", "1.5", "-0.0", "1e3", "1.", ".5", "0x1", "nan", "", "9007199254740993", "1" * 30, '"2.5"', '"1"x'],
    "as_of": [
        "2026-01-02T03:04:05Z",
        "2026-01-02T03:04:05.123456+01:30",
        "2026-01-02 03:04:05Z",
        "2026-01-02t03:04:05z",
        "2026-02-30T00:00:00Z",
        "2026-01-02T24:00:00Z",
        "2026-01-02T03:04:60Z",
        "2026-01-02T03:04:05",
        "2026-01-02T03:04:05.1234567Z",
        "2026-01-02T03:04:05-25:00",
        "1969-12-31T23:59:59Z",
        "2026-07-01T00:00:00Z",
        "",
    ],
    "note": ["", "x", "ü", '"a, b"', '"a""b"', 'a"b', '""', "\x00", "\r", " ", '"', "'"],
    "more": ["", "1"],
}
ROW = st.tuples(*(st.sampled_from([cells[0]] * 8 + cells) for cells in CELLS.values())).map(",".join)


@given(st.lists(ROW | st.sampled_from(["", "1,2", " "]), min_size=1, max_size=6), st.sampled_from(["\n", "\r\n"]))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
def test_blocks_of_plain_rows_are_read_as_row_by_row(tmp_path: Path, lines: list[str], end: str) -> None:
    source = fs.UploadSource("s", timestamp="as_of", schema={"user_id": int, "income": float, "note": str | None})
    found: list[tuple[list[dict[str, object]], list[tuple[int, str, bytes]], int]] = []
    for first in ([], ["a row of one cell, which takes the slow way".replace(",", "")]):
        text = end.join([",".join(CELLS), *first, *lines])
        (tmp_path / "a.csv").write_text(text, newline="")
        pieces = list(read_csv(tmp_path / "a.csv", Door(source), lambda: NOW))
        shift = len(first)
        found.append(
            (
                [row | {"sequence": row["sequence"] - shift} for row in (rows(pieces).to_pylist() if pieces else [])],
                [(one.sequence - shift, one.reason, one.raw) for piece in pieces for one in piece.dead][shift:],
                sum(piece.unknown_members for piece in pieces),
            )
        )

    assert found[0] == found[1]


IMPORTED = fs.UploadSource("imported", timestamp="at", created_at="known", schema={"user_id": int})


def test_rows_may_bring_since_when_they_are_known(tmp_path: Path) -> None:
    at, known, late = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-06-01T00:00:00.000001Z"
    known_of = [known, None, late, "1969-12-31T00:00:00Z", NOW.isoformat()]
    lines = [{"user_id": n, "at": at} | ({} if one is None else {"known": one}) for n, one in enumerate(known_of)]
    (tmp_path / "a.ndjson").write_bytes(b"\n".join(json.dumps(line).encode() for line in lines))
    (tmp_path / "a.csv").write_text(
        "user_id,at,known\n" + "".join(f"{n},{at},{k or ''}\n" for n, k in enumerate(known_of))
    )
    pq.write_table(pa.Table.from_pylist(lines), tmp_path / "a.parquet")

    for suffix, reader in READERS.items():
        [piece] = reader(tmp_path / f"a{suffix}", Door(IMPORTED), lambda: NOW)

        assert piece.rows.schema == landed_schema(IMPORTED)
        naive = [datetime(2026, 1, 2), None, NOW.replace(tzinfo=None)]  # noqa: DTZ001  # as it is landed
        assert piece.rows["created_at"].to_pylist() == naive
        assert [(one.sequence, one.reason) for one in piece.dead] == [
            (2, f"known: {late} is not between 1970 and its landing"),
            (3, "known: 1969-12-31T00:00:00Z is not between 1970 and its landing"),
        ]


@given(st.binary(max_size=300), st.sampled_from(sorted(READERS)))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_a_file_holds_it_is_read_or_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes((HEADER if suffix == ".csv" else b"{" if suffix == ".ndjson" else b"PAR1") + content)

    try:
        pieces = read(path)
    except FileRefusedError:
        return
    for piece in pieces:
        assert piece.rows.num_rows + len(piece.dead) == piece.end_row - piece.first_row


LIES = st.dictionaries(
    st.sampled_from([(UNPACKED_BYTES,), (PACKED_BYTES,), *((part, VALUES) for part in PARTS)]),
    st.sampled_from([-(2**31), -1, 0, 1, 40, 3_000, 2**20, 2**27, 2**31 - 1]) | st.integers(-(2**31), 2**31 - 1),
    max_size=3,
)
WRITTEN = st.fixed_dictionaries(
    {
        "compression": st.sampled_from(["none", "zstd", "snappy", "gzip"]),
        "use_dictionary": st.booleans(),
        "data_page_version": st.sampled_from(["1.0", "2.0"]),
        "write_page_checksum": st.booleans(),
    }
)
CHANGES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4)
NUMBERED = pa.table(
    {
        "user_id": range(2_000),
        "income": [number / 7 for number in range(2_000)],
        "debt": [1.0] * 2_000,
        "age_years": [30] * 2_000,
        "as_of": pa.array([NOW - timedelta(days=1)] * 2_000, pa.timestamp("us", "UTC")),
        "note": [f"note {number % 50}" for number in range(2_000)],
    }
)


@given(LIES, WRITTEN, CHANGES)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_a_parquet_file_that_lies_is_read_or_refused_in_little_memory(
    tmp_path: Path, lies: dict[tuple[int, ...], int], written: dict[str, object], changes: list[tuple[float, int]]
) -> None:
    content = bytearray(with_lie(NUMBERED, lies, **written))
    for place, byte in changes:
        content[int(place * len(content))] = byte
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    before_bytes = peak_bytes(reset=True)

    try:
        pieces = read(path)
        for piece in pieces:
            assert piece.rows.num_rows + len(piece.dead) == piece.end_row - piece.first_row
        assert lies or changes or sum(piece.rows.num_rows for piece in pieces) == 2_000
    except FileRefusedError:
        assert lies or changes

    assert peak_bytes() - before_bytes < 300 << 20


def peak_bytes(*, reset: bool = False) -> int:
    """The most memory that this process had resident since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def test_control_without_a_look_at_its_pages_a_lie_takes_gigabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.grpc.parquet.check_pages", lambda *_: None)
    (tmp_path / "a.parquet").write_bytes(with_lie(NUMBERED, {(PACKED_BYTES,): 2**29}, compression="none"))
    before_bytes = peak_bytes(reset=True)

    with pytest.raises(FileRefusedError):
        read(tmp_path / "a.parquet")

    assert peak_bytes() - before_bytes > 300 << 20
