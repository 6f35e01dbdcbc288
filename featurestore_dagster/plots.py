"""Small plots in metadata, where people would rather look than read: how values, and delays, are distributed.

arrived after         ▁▂█▄▁              ▁  0.08 s … 1.3 h
debt_to_income_ratio  ▂█▆▄▃▂▁▁▁          ▁  0.01 … 3.2
age_years             ▃▅▅▆█▇▇▆▅▅▃▃▂▂▁▁▁▁▁▁  18 … 97
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

WIDTH = 20  # bars
LOOKED_AT = 10_000  # rows
SHOWN_AT_ONCE = 1_000  # characters: Dagster's pages show longer texts only after a click

_BARS = " ▁▂▃▄▅▆▇█"

Plot = tuple[Sequence[int], str]  # heights, and from where to where


class Distributions:
    """Looks at the first rows that are added, and plots each column of them."""

    def __init__(self, columns: Iterable[str]) -> None:
        self._columns = list(columns)
        self._tables: list[pa.Table] = []
        self._rows = 0

    def add(self, rows: pa.Table) -> None:
        """Rows of a view's log: its columns, `event_timestamp` and `created_at`."""
        taken = np.arange(min(rows.num_rows, LOOKED_AT - self._rows))
        if len(taken):
            self._rows += len(taken)
            self._tables.append(rows.select(["event_timestamp", "created_at", *self._columns]).take(taken))

    def metadata(self) -> dict[str, dg.MetadataValue]:
        """The plots, under their name; nothing if there were no rows."""
        if not self._tables:
            return {}
        rows = pa.concat_tables(self._tables)
        delays = _delays(pc.subtract(rows["created_at"], rows["event_timestamp"]))
        return drawn({"arrived after": delays} | {name: plot_of(rows[name]) for name in self._columns})


def drawn(plots: Mapping[str, Plot]) -> dict[str, dg.MetadataValue]:
    """A line for each plot, as many as a page shows at once."""
    longest = max((len(name) for name in plots), default=0)
    text = ""
    for name, plot in plots.items():
        line = f"{name:{longest}}  {_bars(plot[0]):{WIDTH}}  {plot[1]}\n"
        if len(text) + len(line) < SHOWN_AT_ONCE - len("```\n```"):
            text += line
    return {"distribution": dg.MetadataValue.md(f"```\n{text}```")} if text else {}


def plot_of(column: pa.ChunkedArray) -> Plot:
    """Numbers from the least to the greatest, texts from the most common one on; NULL and NaN left out."""
    known = column.drop_null()
    if pa.types.is_string(column.type):
        counts = Counter(map(str, known.to_pylist())).most_common()
        return [count for _, count in counts[:WIDTH]], f"{counts[0][0]:.15} … {len(counts)} values" if counts else ""
    numbers = known.to_numpy(zero_copy_only=False).astype(np.float64)
    return _histogram(numbers[np.isfinite(numbers)], lambda number: f"{number:.4g}")


def _delays(durations: pa.ChunkedArray) -> Plot:
    """By their logarithm: most events arrive at once, some a day later."""
    seconds = durations.cast(pa.int64()).to_numpy() / 1e6
    return _histogram(np.log10(np.maximum(seconds, 1e-3)), lambda number: _time_text(10.0**number))


def _histogram(numbers: NDArray[np.float64], text: Callable[[float], str]) -> Plot:
    if not len(numbers):
        return [], ""
    counts, _ = np.histogram(numbers, WIDTH)
    return counts.tolist(), f"{text(float(numbers.min()))} … {text(float(numbers.max()))}"


def _time_text(seconds: float) -> str:
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length_s:
            return f"{seconds / length_s:.3g} {unit}"
    return f"{seconds:.3g} s"


def _bars(heights: Sequence[int]) -> str:
    """The highest one is full; what is not empty can be seen."""
    most, full = max(heights, default=0), len(_BARS) - 1
    return "".join(_BARS[-(-height * full // most)] if height else _BARS[0] for height in heights)
