"""The highest steady rate of events that the whole platform takes on this machine: broker and generator included.

python -m benchmarks.steady_rate                  # idle, 5,000 events/s, then looks for the rate and holds it
python -m benchmarks.steady_rate --hold 20000     # holds this one, for 10 minutes: 14 in all
python -m benchmarks.steady_rate --hold 20000 --minutes 1 --paces

`featurestore up` with every setting as everybody has it, in a directory of its own. Lag is what the generator has had
acknowledged and the log does not have yet, in every view of the source. It is flat if over the whole time it grew by
less than one pause between runs brings (10 s of events). Beside the stream, records of their own users are sent at
random moments, and looked for in Redis: from produced to readable.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.cpu import Cpu
from benchmarks.probes import Probes
from featurestore.offline.log import accounting
from featurestore.settings import DagsterSettings
from featurestore.store import Store, connect
from featurestore_cli.stack.ports import Ports
from featurestore_cli.stack.service import get_http, last_lines
from featurestore_cli.stack.state import Home, ProcessState
from featurestore_dagster.features.project import PROJECT
from featurestore_dagster.features.user import USER_EVENTS
from ingest.generator.ledger import read_ledger
from tests.e2e.platform import Platform

GOAL_PER_S = 20_000
FIRST_PER_S, MOST_PER_S = 10_000, 80_000
NEAR = 1.15  # how near the search comes
WARM_UP_S = 15.0  # of each rate, and until its first runs have ended
LOOK_S = 1.0
DRAINED_WITHIN_S = 300.0
USERS = 10_000
GOOD_EVENTS = rf'fs_generator_records_total{{outcome="good",source="{USER_EVENTS.name}"}} (\S+)'
PAUSE_S = DagsterSettings().run_interval_s


@dataclass
class Held:
    """What was seen while a rate was held."""

    per_s: float
    produced: list[tuple[float, int]] = field(default_factory=list)  # (seconds, events) at each look
    lag: list[tuple[float, int]] = field(default_factory=list)
    readable_s: list[float] = field(default_factory=list)
    cpu_s: Mapping[str, float] = field(default_factory=dict)
    bytes_before: Mapping[str, int] = field(default_factory=dict)
    bytes_after: Mapping[str, int] = field(default_factory=dict)

    @property
    def took_s(self) -> float:
        return self.produced[-1][0] - self.produced[0][0]

    @property
    def events(self) -> int:
        return self.produced[-1][1] - self.produced[0][1]

    @property
    def reached_per_s(self) -> float:
        return self.events / self.took_s

    @property
    def grew(self) -> float:
        """By how many events lag grew, by the line through all looks."""
        seconds, events = zip(*self.lag, strict=True)
        return statistics.linear_regression(seconds, events).slope * self.took_s

    @property
    def is_flat(self) -> bool:
        return self.reached_per_s >= 0.97 * self.per_s and self.grew < PAUSE_S * max(self.per_s, 1.0)

    def __str__(self) -> str:
        lag = statistics.median(events for _, events in self.lag) / max(self.per_s, 1.0)
        readable = sorted(self.readable_s)
        shown = (
            f"{statistics.median(readable):5.1f} {readable[round(0.95 * (len(readable) - 1))]:5.1f}" if readable else ""
        )
        cores = sum(self.cpu_s.values()) / self.took_s
        return (
            f"  {self.per_s:8,.0f} {self.reached_per_s:9,.0f} {lag:9.1f} {self.grew / max(self.per_s, 1.0):10.1f} "
            f"{'flat' if self.is_flat else 'grows':>6} {cores:6.2f}   {shown}"
        )


HEADER = "    wanted   reached  lag, s  lag grew, s         cores   produced → readable, s: median, p95"


class Stream:
    """The platform under the generator."""

    def __init__(self, platform: Platform, store: Store) -> None:
        self._platform, self._store = platform, store
        self._targets = {view.target for view in PROJECT.views_of(USER_EVENTS)}
        self._probes = Probes(platform, store)
        self._port = Ports().take()  # of the generator's metrics
        self._sent = 0  # by generators that have ended
        self._restarts = 0

    def hold(self, per_s: float, seconds: float) -> Held:
        """Send at a rate for so long, after a warm-up, when all that was sent before is in the log."""
        self._drain()
        held = Held(per_s)
        with self._generator(per_s) as roots:
            time.sleep(WARM_UP_S if per_s else 0.0)  # noqa: TID251  # the clock of the benchmark
            held.bytes_before = self._bytes()
            cpu = Cpu(roots)
            with self._probes.going_on(held.readable_s), cpu.counting():
                began = time.monotonic()
                while (now := time.monotonic() - began) < seconds:
                    applied, produced = self._applied(), self._produced()  # in this order lag is never less than it is
                    held.produced.append((now, produced))
                    held.lag.append((now, produced - applied))
                    time.sleep(LOOK_S)  # noqa: TID251
                held.bytes_after = self._bytes()
            held.cpu_s = cpu.seconds
        print(held, flush=True)
        self._say_restarts()
        return held

    @contextmanager
    def _generator(self, per_s: float) -> Generator[Mapping[str, int]]:
        """As a process of its own; yields every process of the platform by its name."""
        roots = {one.name: one.pid for one in self._processes() if one.pid and psutil.pid_exists(one.pid)}
        if not per_s:
            yield roots
            return
        given = {"GENERATOR_EVENTS_PER_S": per_s, "GENERATOR_USERS": USERS, "METRICS_PORT": self._port}
        env = self._platform.env | {f"FEATURESTORE_{name}": str(value) for name, value in given.items()}
        command = [sys.executable, "-m", "featurestore_cli.main", "run", "generator"]
        with (self._platform.data_dir / "logs" / "generator.log").open("ab") as log:
            process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        try:
            yield {**roots, "generator": process.pid}
        finally:
            process.terminate()
            process.wait(60)
            self._sent = read_ledger(self._platform.data_dir)[USER_EVENTS.name].good

    def _processes(self) -> Sequence[ProcessState]:
        state = Home(self._platform.data_dir).state()
        assert state is not None
        return state.processes

    def _say_restarts(self) -> None:
        """That a program died under the load is worth more than any number; and what its log says of it."""
        restarts = {one.name: one.restarts for one in self._processes() if one.restarts}
        if sum(restarts.values()) > self._restarts:
            self._restarts = sum(restarts.values())
            for name, count in restarts.items():
                print(f"  {name} was started again, {count} times so far")
                for line in last_lines(self._platform.data_dir / "logs" / f"{name}.log", 40):
                    print(f"    {line}", flush=True)

    def _produced(self) -> int:
        """Good events that are acknowledged; the ledger is exact, and written when a generator ends."""
        found = re.search(GOOD_EVENTS, get_http(self._port, "/metrics")[1].decode())
        return self._sent + int(float(found[1])) if found else self._sent

    def _applied(self) -> int:
        """Of the events, how many every view has in its log or has left out by its rules; probes are not counted."""
        rows = [one.rows_in for one in accounting(self._store.database) if one.target in self._targets]
        return min(rows, default=0) - self._probes.sent

    def _drain(self) -> None:
        deadline = time.monotonic() + DRAINED_WITHIN_S
        while self._applied() < self._produced():
            if time.monotonic() > deadline:
                sys.exit(
                    f"{self._produced() - self._applied():,} events are not in the log after {DRAINED_WITHIN_S:g} s"
                )
            time.sleep(LOOK_S)  # noqa: TID251

    def _bytes(self) -> Mapping[str, int]:
        """On disk, by directory of the platform."""
        found: dict[str, int] = {}
        for path in self._platform.data_dir.iterdir():
            done = subprocess.run(["du", "-sB1", path], capture_output=True, text=True, check=False)
            found[path.name] = int(done.stdout.split()[0]) if done.stdout else 0
        return found


def find(stream: Stream, try_s: float) -> float:
    """The highest rate that is flat in a short try: by doubling, then by halving the gap."""
    flat, steep = 0.0, float("inf")
    per_s = FIRST_PER_S
    while steep > NEAR * flat and per_s <= MOST_PER_S:
        if stream.hold(per_s, try_s).is_flat:
            flat = per_s
        else:
            steep = per_s
        per_s = 2 * flat if steep == float("inf") else (flat + steep) / 2
        if steep < FIRST_PER_S / 8:
            sys.exit("no rate is flat")
    return flat


def details(held: Held) -> None:
    """Where processors and disk went."""
    print(f"  {held.events:,} events in {held.took_s:.0f} s; load average {psutil.getloadavg()[0]:.1f}")
    million = held.events / 1e6
    print("                     cores   CPU seconds per million events")
    for name, seconds in sorted(held.cpu_s.items(), key=lambda one: -one[1]):
        print(f"  {name:18} {seconds / held.took_s:6.3f} {seconds / million:8.1f}")
    print(f"  {'all':18} {sum(held.cpu_s.values()) / held.took_s:6.3f} {sum(held.cpu_s.values()) / million:8.1f}")
    grown = {name: size - held.bytes_before.get(name, 0) for name, size in held.bytes_after.items()}
    shown = ", ".join(f"{name} {size / million / 2**20:.1f}" for name, size in sorted(grown.items()) if size > 2**20)
    print(f"  MiB on disk per million events: {shown}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="that the rate is held")
    parser.add_argument("--try-s", type=float, default=45.0, help="of each try before")
    parser.add_argument("--hold", type=float, help="this rate, and look for none")
    parser.add_argument("--paces", type=float, nargs="*", default=[0.0, 5_000.0], help="to show beside")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        platform = Platform(Path(temporary) / "data")
        with platform.running("--no-generator"), connect(PROJECT, platform.settings) as store:
            stream = Stream(platform, store)
            print(
                f"load average {psutil.getloadavg()[0]:.1f}, of {psutil.cpu_count()} processors\n{HEADER}", flush=True
            )
            for per_s in args.paces:
                stream.hold(per_s, args.try_s)
            per_s = args.hold or find(stream, args.try_s)
            print(f"  {per_s:,.0f} events/s for {args.minutes:g} min (goal: {GOAL_PER_S:,}):")
            while not (held := stream.hold(per_s, 60 * args.minutes)).is_flat and not args.hold:
                per_s /= NEAR  # what looks flat for a minute may not be
            details(held)


if __name__ == "__main__":
    main()
