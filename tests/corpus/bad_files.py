"""Files of the source PROFILES (see `tests.ingest.grpc.conftest`): refused whole, or with bad rows among good ones."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

AS_OF = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
GOOD = {"user_id": 1, "income": 10.0, "debt": 5.0, "age_years": 30, "as_of": AS_OF.isoformat()}
HEADER = b"user_id,income,debt,age_years,as_of\n"
LINE = b"1,10.0,5.0,30,2026-01-02T03:04:05Z\n"


def parquet(path: Path, count: int = 3, **columns: pa.Array) -> None:
    """A good file, but for these columns; `None` leaves one out."""
    good = {
        "user_id": pa.array(range(1, count + 1)),
        "income": pa.array([10.0] * count),
        "debt": pa.array([5.0] * count),
        "age_years": pa.array([30] * count),
        "as_of": pa.array([AS_OF] * count, pa.timestamp("us", "UTC")),
    }
    pq.write_table(pa.table({name: column for name, column in (good | columns).items() if column is not None}), path)


def _repeated_column(path: Path) -> None:
    table = pa.table([pa.array([1]), pa.array([2])], names=["user_id", "user_id"])
    pq.write_table(table, path)


def _changed(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        parquet(path, 1_000)
        path.write_bytes(change(path.read_bytes()))

    return write


def _flipped(data: bytes) -> bytes:
    """A bit of the first page is another."""
    changed = bytearray(data)
    changed[60] ^= 1
    return bytes(changed)


def _bomb(path: Path) -> None:
    """A few kilobytes that say eight million rows."""
    names, count = ("user_id", "age_years", "income", "debt", "as_of"), 1_000_000
    same = pa.DictionaryArray.from_arrays(pa.nulls(count, pa.int8()).fill_null(0), pa.array([1]))
    table = pa.table(dict.fromkeys(names, same.cast(pa.int64())))
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for _ in range(8):
            writer.write_table(table)


def ndjson(**changes: object) -> bytes:
    return json.dumps(GOOD | changes).encode()


# Refused whole: suffix, what the file is, a part of the reason.
REFUSED: dict[str, tuple[str, bytes | Callable[[Path], None], str]] = {
    "csv: a header only of spaces": (".csv", b"  \n", "needs the column"),
    "csv: no header": (".csv", LINE, "needs the column"),
    "csv: a needed column is missing": (".csv", b"user_id,income,debt,as_of\n", "age_years"),
    "csv: the time is missing": (".csv", b"user_id,income,debt,age_years\n", "as_of"),
    "csv: a column twice": (".csv", b"user_id," + HEADER, "'user_id' stands twice"),
    "csv: other separators": (".csv", HEADER.replace(b",", b";"), "needs the column"),
    "csv: tabs": (".csv", HEADER.replace(b",", b"\t"), "needs the column"),
    "csv: header in capitals": (".csv", HEADER.upper(), "needs the column"),
    "csv: space in the header": (".csv", HEADER.replace(b",", b", "), "needs the column"),
    "csv: UTF-16": (".csv", (HEADER + LINE).decode().encode("utf-16"), "not valid UTF-8"),
    "csv: a Parquet file": (".csv", _changed(lambda data: data), "needs the column|not CSV"),
    "csv: a line of 5 MiB": (".csv", HEADER + b"1" * (5 << 20), "longer than"),
    "ndjson: a CSV file": (".ndjson", HEADER + LINE, "not NDJSON"),
    "ndjson: a list": (".ndjson", b"[" + ndjson() + b"]", "not NDJSON"),
    "ndjson: UTF-16": (".ndjson", ndjson().decode().encode("utf-16"), "not NDJSON"),
    "ndjson: a Parquet file": (".ndjson", _changed(lambda data: data), "not NDJSON"),
    "ndjson: a line of 5 MiB": (".ndjson", b'{"a": "' + b"x" * (5 << 20) + b'"}', "longer than"),
    "parquet: no Parquet": (".parquet", b"x" * 1_000, "not a whole Parquet file"),
    "parquet: CSV": (".parquet", HEADER + LINE, "not a whole Parquet file"),
    "parquet: a few bytes": (".parquet", b"PAR1", "not a whole Parquet file"),
    "parquet: the magic twice": (".parquet", b"PAR1" * 10, "not a whole Parquet file"),
    "parquet: cut": (".parquet", _changed(lambda data: data[: len(data) // 2]), "not a whole Parquet file"),
    "parquet: the end is cut": (".parquet", _changed(lambda data: data[:-1]), "not a whole Parquet file"),
    "parquet: the beginning is cut": (".parquet", _changed(lambda data: data[100:]), "not a whole Parquet file"),
    "parquet: nothing between the magics": (
        ".parquet",
        _changed(lambda d: d[:4] + bytes(len(d) - 8) + d[-4:]),
        "not a whole",
    ),
    "parquet: a bomb": (".parquet", _bomb, "200 times as large as the file"),
    "parquet: a column is missing": (".parquet", lambda path: parquet(path, income=None), "income"),
    "parquet: the time is missing": (".parquet", lambda path: parquet(path, as_of=None), "as_of"),
    "parquet: a column twice": (".parquet", _repeated_column, "stands twice"),
    "parquet: text for a number": (
        ".parquet",
        lambda p: parquet(p, income=pa.array(["1", "2", "3"])),
        "'income' has the type",
    ),
    "parquet: float for an int": (".parquet", lambda p: parquet(p, user_id=pa.array([1.0, 2.0, 3.0])), "'user_id' has"),
    "parquet: bool for an int": (".parquet", lambda p: parquet(p, age_years=pa.array([True] * 3)), "'age_years' has"),
    "parquet: list for a number": (".parquet", lambda p: parquet(p, income=pa.array([[1.0]] * 3)), "'income' has"),
    "parquet: naive times": (
        ".parquet",
        lambda p: parquet(p, as_of=pa.array([AS_OF.replace(tzinfo=None)] * 3)),
        "have no zone",
    ),
    "parquet: dates": (".parquet", lambda p: parquet(p, as_of=pa.array([AS_OF.date()] * 3)), "'as_of' has"),
    "parquet: numbers for times": (".parquet", lambda p: parquet(p, as_of=pa.array([1, 2, 3])), "'as_of' has"),
    "parquet: a needed column of nulls": (".parquet", lambda p: parquet(p, income=pa.nulls(3)), "'income' has"),
}

# One bad row between two good ones: suffix, the bad row's line, a part of the reason.
BAD_LINES: dict[str, tuple[str, bytes, str]] = {
    "csv: no number": (".csv", LINE.replace(b"10.0", b"n/a"), "income: text, not a number"),
    "csv: nothing where a number is needed": (".csv", LINE.replace(b"10.0", b""), "income: missing"),
    "csv: NaN": (".csv", LINE.replace(b"10.0", b"NaN"), "income: "),
    "csv: infinity": (".csv", LINE.replace(b"10.0", b"inf"), "income: "),
    "csv: too large": (".csv", LINE.replace(b"10.0", b"1e400"), "income: "),
    "csv: space before a number": (".csv", LINE.replace(b"10.0", b" 10.0"), "income: "),
    "csv: thousands": (".csv", LINE.replace(b"10.0", b'"1,000"'), "income: "),
    "csv: hexadecimal": (".csv", LINE.replace(b"30", b"0x1e"), "age_years: "),
    "csv: leading zero": (".csv", LINE.replace(b"30", b"030"), "age_years: "),
    "csv: float for an int": (".csv", LINE.replace(b"30", b"30.0"), "age_years: "),
    "csv: int beyond 64 bits": (".csv", LINE.replace(b"30", b"9223372036854775808"), "age_years: "),
    "csv: other digits": (".csv", LINE.replace(b"30", "٣٠".encode()), "age_years: "),
    "csv: a member smuggled in": (".csv", LINE.replace(b"10.0", b'"1,""debt"":7"'), "income: "),
    "csv: formula": (".csv", LINE.replace(b"10.0", b"=1+1"), "income: "),
    "csv: naive time": (".csv", LINE.replace(b"Z", b""), "as_of: "),
    "csv: nothing for the time": (".csv", LINE.replace(b"2026-01-02T03:04:05Z", b""), "as_of: missing"),
    "csv: a cell too few": (".csv", b"1,2,3\n", "3 cells, not 5"),
    "csv: a cell too many": (".csv", LINE.replace(b"\n", b",x\n"), "6 cells, not 5"),
    "csv: something after a quote": (".csv", LINE.replace(b"10.0", b'"10.0"x'), "not CSV"),
    "csv: invalid UTF-8": (".csv", LINE.replace(b"10.0", b"\xff"), "UTF-8"),
    "csv: NUL": (".csv", LINE.replace(b"10.0", b"1\x000"), "income: "),
    "ndjson: cut": (".ndjson", ndjson()[:-4] + b"\n", ""),
    "ndjson: text for a number": (".ndjson", ndjson(income="10") + b"\n", "income: text, not a number"),
    "ndjson: null": (".ndjson", ndjson(income=None) + b"\n", "income: missing"),
    "ndjson: two on a line": (".ndjson", ndjson() + ndjson() + b"\n", ""),
    "ndjson: no record": (".ndjson", b"x\n", ""),
    "ndjson: invalid UTF-8": (".ndjson", ndjson().replace(b"user_id", b"\xff") + b"\n", ""),
}

# One bad value in the middle of three rows of a Parquet file: the column, its values, a part of the reason.
BAD_VALUES: dict[str, tuple[str, pa.Array, str]] = {
    "null": ("income", pa.array([1.0, None, 1.0]), "income: missing"),
    "NaN": ("income", pa.array([1.0, float("nan"), 1.0]), "income: not a finite number"),
    "infinity": ("debt", pa.array([1.0, float("-inf"), 1.0]), "debt: not a finite number"),
    "uint64 beyond int64": ("user_id", pa.array([1, 2**63, 3], pa.uint64()), "user_id: out of range"),
    "an int that a float changes": ("income", pa.array([1, 2**53 + 1, 3]), "income: a float does not hold"),
    "time before 1970": ("as_of", pa.array([0, -1, 1], pa.timestamp("s", "UTC")), "as_of: not between"),
    "time in milliseconds beyond 2200": (
        "as_of",
        pa.array([0, 2**62, 1], pa.timestamp("ms", "UTC")),
        "as_of: not between",
    ),
    "time in nanoseconds of the future": ("as_of", pa.array([0, 2**62, 1], pa.timestamp("ns", "UTC")), "in the future"),
    "no time": ("as_of", pa.array([0, None, 1], pa.timestamp("us", "UTC")), "as_of: missing"),
    "text that is no time": (
        "as_of",
        pa.array(["2026-01-02T03:04:05Z", "2026-01-02T03:04:05", "2026-01-02T03:04:05Z"]),
        "as_of: not an RFC 3339 time",
    ),
}
