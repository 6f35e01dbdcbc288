"""Shows the running platform: a live board in a terminal, plain lines elsewhere."""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from featurestore.errors import FeatureStoreError
from featurestore_cli.output import age, count
from featurestore_cli.stack.counts import Counts
from featurestore_cli.stack.service import Say
from featurestore_cli.stack.state import ProcessState, now

COUNT_S = 5.0  # between two counts
DRAW_S = 2.0  # between two drawings of an unchanged board
SUMMARY_S = 10.0  # between two lines of counts
COLOURS = {"ready": "green", "not ready": "yellow", "restarting": "red", "starting": "cyan", "stopping": "cyan"}


class Counting:
    """Counts in a thread of its own: a store that does not answer must not hold up the rest."""

    def __init__(self, read: Callable[[], Counts]) -> None:
        self._read = read
        self._stopping = threading.Event()
        self.latest: Counts | None = None
        self._thread = threading.Thread(target=self._run, name="counts", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=1.0)  # it may be waiting for a store; it ends with the process then

    def _run(self) -> None:
        while not self._stopping.wait(COUNT_S):
            try:
                self.latest = self._read()
            except (FeatureStoreError, OSError):
                self.latest = None


class Lines:
    """A line for each change of a state, and one of counts every now and then."""

    def __init__(self, say: Say, counting: Counting | None, dagster_url: str) -> None:
        self._say, self._counting, self._dagster_url = say, counting, dagster_url
        self._states: dict[str, str] = {}
        self._summary_at: float | None = None

    def changed(self, process: ProcessState) -> None:
        if process.state == self._states.get(process.name):
            return  # only another note
        self._states[process.name] = process.state
        address = f"  {process.address}" if process.address and process.state == "ready" else ""
        note = f"  ({process.note})" if process.note else ""
        self._say(f"{process.name:<14}  {process.state}{address}{note}")

    def ready(self, after_s: float) -> None:
        self._say(f"the platform is ready after {after_s:.1f} s; Dagster: {self._dagster_url}")
        if self._counting:
            self._counting.start()
            self._summary_at = time.monotonic() + SUMMARY_S

    def refresh(self, processes: Sequence[ProcessState]) -> None:
        if self._summary_at is None or time.monotonic() < self._summary_at:
            return
        self._summary_at = time.monotonic() + SUMMARY_S
        if self._counting and self._counting.latest:
            self._say(summary(self._counting.latest, now()))

    def close(self) -> None:
        if self._counting and self._summary_at is not None:
            self._counting.stop()


class Board:
    """Every process with its state and address, and the counts, drawn in place."""

    def __init__(self, console: Console, counting: Counting, dagster_url: str) -> None:
        self._counting, self._dagster_url = counting, dagster_url
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._live.start()
        self._counts_from: float | None = None
        self._drawn_at = 0.0
        self._ready_after_s: float | None = None
        self._stale = True

    def changed(self, process: ProcessState) -> None:
        self._stale = True

    def ready(self, after_s: float) -> None:
        self._ready_after_s = after_s
        self._counting.start()

    def refresh(self, processes: Sequence[ProcessState]) -> None:
        if not self._stale and time.monotonic() < self._drawn_at + DRAW_S:
            return
        self._stale, self._drawn_at = False, time.monotonic()
        self._live.update(self._draw(processes, now()), refresh=True)

    def close(self) -> None:
        if self._ready_after_s is not None:
            self._counting.stop()
        self._live.stop()

    def _draw(self, processes: Sequence[ProcessState], at: datetime) -> Group:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for title in ("process", "state", "since", "address"):
            table.add_column(title, no_wrap=True)
        table.add_column("note", overflow="ellipsis", no_wrap=True)
        for one in processes:
            state = Text(one.state, style=COLOURS.get(one.state, "dim"))
            table.add_row(one.name, state, age(one.since, at), one.address or "–", one.note)
        return Group(table, Text(), *self._foot(at, stopping=any(one.state == "stopping" for one in processes)))

    def _foot(self, at: datetime, *, stopping: bool) -> list[Text]:
        if stopping:
            return [Text("  draining; a second Ctrl-C leaves at once", style="dim")]
        if self._ready_after_s is None:
            return [Text("starting …", style="dim")]
        counts = self._counting.latest
        return [
            Text(f"  {summary(counts, at)}" if counts else "  counting …"),
            Text(f"  Dagster  {self._dagster_url}", style="bold"),
            Text("  Ctrl-C drains and stops everything", style="dim"),
        ]


def summary(counts: Counts, at: datetime) -> str:
    """The counts in one line."""
    parts = [f"{name} {count(number)}" for name, field in SHOWN if (number := getattr(counts, field)) is not None]
    newest = counts.newest_event_timestamp
    return " · ".join([*parts, f"newest feature {age(newest, at)}{' ago' if newest else ''}"])


SHOWN = (
    ("produced", "produced"),
    ("landed", "landed"),
    ("dead letters", "dead_letters"),
    ("logged", "logged"),
    ("online", "online"),
)
