"""Small plots in metadata: every column has its bars and its ends, and a page shows them without a click."""

from datetime import datetime, timedelta

import pyarrow as pa

from featurestore_dagster.plots import LOOKED_AT, SHOWN_AT_ONCE, WIDTH, Distributions, drawn, plot_of

NOW = datetime(2026, 11, 22, 10)  # noqa: DTZ001  # as the log has it


def rows(**columns: pa.Array) -> pa.Table:
    count = len(next(iter(columns.values())))
    times = {"event_timestamp": [NOW - timedelta(seconds=n) for n in range(count)], "created_at": [NOW] * count}
    return pa.table({name: pa.array(values, pa.timestamp("us")) for name, values in times.items()} | columns)


def lines_of(seen: Distributions) -> list[str]:
    first, *lines, last = str(seen.metadata()["distribution"].value).split("\n")
    assert (first, last) == ("```", "```")
    return lines


def test_every_column_is_drawn_with_its_ends() -> None:
    seen = Distributions(["ratio", "action"])
    seen.add(rows(ratio=pa.array([0.25, 0.25, 1.0, None]), action=pa.array(["view", "buy", "view", "view"])))
    gap = " " * (WIDTH - 2)
    delays, *lines = lines_of(seen)
    assert lines == [f"ratio          █{gap}▄  0.25 … 1", f"action         █▃{gap}  view … 2 values"]
    assert delays.endswith("0.001 s … 3 s")


def test_delays_are_told_in_their_units() -> None:
    seen = Distributions([])
    seen.add(rows(x=pa.array(range(3))).set_column(0, "event_timestamp", [[NOW, NOW - timedelta(hours=3), NOW]]))
    assert lines_of(seen)[0].endswith("0.001 s … 3 h")


def test_what_is_no_number_is_left_out() -> None:
    heights, ends = plot_of(pa.chunked_array([[1.0, float("nan"), None, 3.0, float("inf")]]))
    assert (sum(heights), len(heights), ends) == (2, WIDTH, "1 … 3")
    assert plot_of(pa.chunked_array([pa.array([None], pa.int64())])) == ([], "")
    assert plot_of(pa.chunked_array([pa.array([], pa.string())])) == ([], "")
    heights, ends = plot_of(pa.chunked_array([[True, False, True]]))
    assert (heights[0], heights[-1], ends) == (1, 2, "0 … 1")


def test_a_single_one_among_many_can_be_seen() -> None:
    [line] = str(drawn({"few": ([1, 0, 100_000], "")})["distribution"].value).split("\n")[1:-1]
    assert line.split("  ")[1].startswith("▁ █")


def test_a_page_shows_it_at_once_whatever_it_looks_at() -> None:
    names = [f"column_{number}" for number in range(40)]
    seen = Distributions(names)
    for _ in range(3):
        seen.add(rows(**{name: pa.array(range(LOOKED_AT)) for name in names}))
    assert len(str(seen.metadata()["distribution"].value)) < SHOWN_AT_ONCE
    assert len(lines_of(seen)) > 12


def test_without_rows_there_is_no_plot() -> None:
    seen = Distributions(["ratio"])
    seen.add(rows(ratio=pa.array([], pa.float64())))
    assert seen.metadata() == {}
    assert drawn({}) == {}
