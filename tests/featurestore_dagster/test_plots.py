"""Small pictures in metadata: every column has its bars and its ends, and the picture is small and well-formed."""

import re
from base64 import b64decode
from datetime import datetime, timedelta
from xml.etree import ElementTree

import dagster as dg
import pyarrow as pa

from featurestore_dagster.plots import BARS, LOOKED_AT, Distributions, bars

NOW = datetime(2026, 11, 22, 10)  # noqa: DTZ001  # as the log has it
SVG = "{http://www.w3.org/2000/svg}"


def rows(**columns: pa.Array) -> pa.Table:
    count = len(next(iter(columns.values())))
    times = {"event_timestamp": [NOW - timedelta(seconds=n) for n in range(count)], "created_at": [NOW] * count}
    return pa.table({name: pa.array(values, pa.timestamp("us")) for name, values in times.items()} | columns)


def picture(metadata: dict[str, dg.MetadataValue]) -> ElementTree.Element:
    value = metadata["distribution"].value
    found = re.fullmatch(r"!\[distribution\]\(data:image/svg\+xml;base64,([^)]+)\)", str(value))
    assert found
    return ElementTree.fromstring(b64decode(found[1]))


def test_every_column_is_drawn_with_its_ends() -> None:
    seen = Distributions(["ratio", "action"])
    seen.add(rows(ratio=pa.array([0.25, 1.0, None]), action=pa.array(["<b>", "view", "<b>"])))
    svg = picture(seen.metadata())
    texts = [text.text for text in svg.iter(f"{SVG}text")]
    assert texts == ["ratio", "0.25", "1", "action", "<b>", "2 values", "arrived after", "0.001 s", "2 s"]
    assert [path.attrib["d"].count("M") for path in svg.iter(f"{SVG}path")] == [2, 2, 3]


def test_bars_leave_out_what_is_no_number() -> None:
    heights, first, last = bars(pa.chunked_array([[1.0, float("nan"), None, 3.0, float("inf")]]))
    assert (sum(heights), len(heights), first, last) == (2, BARS, "1", "3")
    assert bars(pa.chunked_array([pa.array([None], pa.int64())])) == ([], "", "")
    assert bars(pa.chunked_array([pa.array([], pa.string())])) == ([], "", "0 values")
    assert bars(pa.chunked_array([[True, False, True]]))[0][0] == 1


def test_it_stays_small_whatever_it_looks_at() -> None:
    names = [f"column_{number}" for number in range(40)]
    seen = Distributions(names)
    for _ in range(3):
        seen.add(rows(**{name: pa.array(range(LOOKED_AT)) for name in names}))
    assert len(str(seen.metadata()["distribution"].value)) < 20_000


def test_without_rows_there_is_no_picture() -> None:
    seen = Distributions(["ratio"])
    seen.add(rows(ratio=pa.array([], pa.float64())))
    assert seen.metadata() == {}
