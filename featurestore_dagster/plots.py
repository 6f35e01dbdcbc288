"""Small pictures in metadata, where people would rather look than read: how values, and delays, are distributed."""

from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from html import escape

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

BARS = 32
SHOWN = 12  # columns
LOOKED_AT = 10_000  # rows

_NAME, _PLOT, _HEIGHT, _ROW = 170, 256, 24, 44  # pixels: widths, and of a line the bars and the whole
_STYLE = "text{font:11px sans-serif;fill:#6b7280}.n{fill:#374151}path{fill:#4f6bed}"

Bars = tuple[Sequence[float], str, str]  # heights, what stands at the left end, and at the right one


class Distributions:
    """Looks at the first rows that are added, and draws each column of them."""

    def __init__(self, columns: Iterable[str]) -> None:
        self._columns = list(columns)[:SHOWN]
        self._tables: list[pa.Table] = []
        self._rows = 0

    def add(self, rows: pa.Table) -> None:
        """Rows of a view's log: its columns, `event_timestamp` and `created_at`."""
        taken = np.arange(min(rows.num_rows, LOOKED_AT - self._rows))
        if len(taken):
            self._rows += len(taken)
            self._tables.append(rows.select(["event_timestamp", "created_at", *self._columns]).take(taken))

    def metadata(self) -> dict[str, dg.MetadataValue]:
        """The picture, under its name; nothing if there were no rows."""
        if not self._tables:
            return {}
        rows = pa.concat_tables(self._tables)
        delays = _delays(pc.subtract(rows["created_at"], rows["event_timestamp"]))
        return {"distribution": drawn({name: bars(rows[name]) for name in self._columns} | {"arrived after": delays})}


def drawn(plots: dict[str, Bars]) -> dg.MarkdownMetadataValue:
    """One picture of all, a line each; inline, so it needs no file, no server and no library."""
    lines = [_line(number * _ROW, name, plot) for number, (name, plot) in enumerate(plots.items())]
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_NAME + _PLOT}" height="{len(plots) * _ROW + 6}">'
        f"<style>{_STYLE}</style>{''.join(lines)}</svg>"
    )
    return dg.MetadataValue.md(f"![distribution](data:image/svg+xml;base64,{b64encode(svg.encode()).decode()})")


def bars(column: pa.ChunkedArray) -> Bars:
    """Numbers from the least to the greatest, texts from the most common one on; NULL and NaN left out."""
    known = column.drop_null()
    if pa.types.is_string(column.type):
        counts = Counter(map(str, known.to_pylist())).most_common()
        return [count for _, count in counts[:BARS]], counts[0][0] if counts else "", f"{len(counts)} values"
    numbers = known.to_numpy(zero_copy_only=False).astype(np.float64)
    return _histogram(numbers[np.isfinite(numbers)], lambda number: f"{number:.4g}")


def _delays(durations: pa.ChunkedArray) -> Bars:
    """Spread by their logarithm: most events arrive at once, some a day later."""
    seconds = durations.cast(pa.int64()).to_numpy() / 1e6
    logarithms = np.log10(np.maximum(seconds, 1e-3))
    return _histogram(logarithms, lambda number: _time_text(10.0**number))


def _histogram(numbers: NDArray[np.float64], text: Callable[[float], str]) -> Bars:
    if not len(numbers):
        return [], "", ""
    counts, edges = np.histogram(numbers, BARS)
    return counts.tolist(), text(float(edges[0])), text(float(edges[-1]))


def _time_text(seconds: float) -> str:
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length_s:
            return f"{seconds / length_s:.3g} {unit}"
    return f"{seconds:.3g} s"


def _line(top: int, name: str, plot: Bars) -> str:
    heights, first, last = plot
    width, most = _PLOT / BARS, max(heights, default=1)
    foot = top + _HEIGHT
    steps = (
        f"M{_NAME + number * width:g} {foot}v-{max(1, height * _HEIGHT / most):.0f}h{width - 1:g}V{foot}z"
        for number, height in enumerate(heights)
        if height
    )
    below = foot + 13
    return (
        f'<text class="n" x="0" y="{foot - 4}">{escape(name)}</text><path d="{"".join(steps)}"/>'
        f'<text x="{_NAME}" y="{below}">{escape(first)}</text>'
        f'<text x="{_NAME + _PLOT}" y="{below}" text-anchor="end">{escape(last)}</text>'
    )
