"""What commands print: tables for people, JSON for programs, one line for an error."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta


def say(text: str = "") -> None:
    """A line on stdout."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """A line on stderr."""
    sys.stderr.write(f"{text}\n")


def show_progress(doing: str, done: int, of: int) -> None:
    """One line on a terminal, overwritten."""
    if sys.stderr.isatty():
        share = f"{100 * done // of} %" if of else ""
        sys.stderr.write(f"\r\x1b[K{f'{doing}  {share}' if done < of else ''}")
        sys.stderr.flush()


def emit(value: object) -> None:
    """A value as JSON; times in ISO 8601, NaN and infinities as texts."""
    from featurestore.database.reads import spelled  # here: Arrow takes its time to import

    say(json.dumps(spelled(value), default=_plain, indent=2, allow_nan=False))


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)


def table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> None:
    """Columns as wide as they need to be; numbers to the right."""
    texts = [[text(value) for value in row] for row in rows]
    widths = [max([len(header), *(len(row[i]) for row in texts)]) for i, header in enumerate(headers)]
    right = [bool(rows) and all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(headers))]
    for line in [list(headers), *texts]:
        cells = (cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, widths, right, strict=True))
        say("  ".join(cells).rstrip())


def records(rows: Sequence[Mapping[str, object]], headers: Sequence[str]) -> None:
    table([[row[name] for name in headers] for row in rows], headers)


def text(value: object) -> str:
    """One cell."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"
    return str(value)


def count(number: int | None) -> str:
    """1204331 → 1 204 331."""
    return "–" if number is None else f"{number:,}".replace(",", " ")


def counted(number: int, one: str, many: str = "") -> str:
    """1 batch, 1 204 batches; without `many`, by an s."""
    return f"{count(number)} {one if number == 1 else many or f'{one}s'}"


def amount(number: int) -> str:
    """About how many: 1 234 567 → 1.2 M; up to 9 999 exactly."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size and number > 9_999:
            return f"{number / size:.1f} {unit}"
    return count(number)


def age(since: datetime | None, now: datetime) -> str:
    """How long ago: 12s, 2h 14m, 3d 4h."""
    if since is None:
        return "–"
    seconds = max(0, int((now - since).total_seconds()))
    for size, unit, smaller_size, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if seconds >= size:
            rest = seconds % size // smaller_size
            return f"{seconds // size}{unit} {rest}{smaller}" if rest else f"{seconds // size}{unit}"
    return f"{seconds}s"
