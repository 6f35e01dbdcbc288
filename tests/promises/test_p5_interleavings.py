"""P1 and P5: random histories under random interleavings of runs, backfills, version changes and crashes leave the log,
the quarantine, the ledger and the counts that a serial run leaves."""

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import featurestore as fs
from featurestore.apply import apply_batches
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.database.jobs import AppendJob, AppendReply
from featurestore.definitions.view import FeatureView
from featurestore.errors import StoreUnavailableError, TransientError
from featurestore.landing.batch import Batch, to_micros
from featurestore.landing.publish import Published
from featurestore.landing.schema import landed_schema
from featurestore.landing.zone import LandingZone, kafka_chain
from featurestore.offline.tables import schema_job
from featurestore.online.memory import MemoryOnlineStore
from featurestore.online.values import PutCounts
from tests.featurestore.shop import CLICKS, NOW, USER

V1 = fs.FeatureView(
    "spend", USER, CLICKS, [fs.Feature("last_price", float, "price", online=True)],
    where="price <> 3", expect=[fs.Expectation("price >= 0")],
)  # fmt: skip
V2 = replace(V1, where="price <> 4", version=2)
SEEDS = range(8)

_TABLES = {
    "log": "SELECT * EXCLUDE (commit_seq) FROM log.spend_v{version} ORDER BY ALL",
    "quarantine": "SELECT * FROM quarantined_rows WHERE target = 'spend@v{version}' ORDER BY ALL",
    "ledger": "SELECT batch_id, rows_in, logged, filtered, quarantined FROM applied "
    "WHERE target = 'spend@v{version}' ORDER BY ALL",
}
State = dict[str, list[dict[str, object]]]


class KilledError(Exception):
    """The process of a run is gone."""


class CrashingDatabase(EmbeddedDatabase):
    """Loses its caller before or after the commit."""

    dice: random.Random | None = None

    def append(self, job: AppendJob) -> AppendReply:
        if self.dice and self.dice.random() < 0.2:
            raise TransientError("no reply")
        reply = super().append(job)
        if self.dice and self.dice.random() < 0.2:
            raise KilledError
        return reply


class CrashingOnline(MemoryOnlineStore):
    """Loses its caller between the values and the end."""

    dice: random.Random | None = None

    def push(self, view: FeatureView, rows: pa.Table, commit_seqs: Sequence[int], **others: Any) -> PutCounts:
        if self.dice and self.dice.random() < 0.2:
            raise StoreUnavailableError("Redis", "127.0.0.1:1")
        return super().push(view, rows, commit_seqs, **others)


def land(zone: LandingZone, dice: random.Random) -> Batch:
    """A batch of up to four rows: kept, filtered or bad, late or not."""
    chain = kafka_chain("clicks", "c", "t", 0)
    tail = zone.tail(chain)
    start = tail.end if tail else 0
    rows = [
        {
            "sequence": start + number,
            "event_timestamp": to_micros(NOW) + dice.randint(-20, 20),
            "user_id": dice.randint(1, 3),
            "price": float(dice.randint(-1, 5)),
        }
        for number in range(dice.randint(0, 4))
    ]
    published = zone.publish(
        chain, pa.Table.from_pylist(rows, schema=landed_schema(CLICKS)),
        source="clicks", start=start, end=start + max(1, len(rows)), schema_version="1", previous=tail,
    )  # fmt: skip
    assert isinstance(published, Published)
    return published.batch


def state(database: EmbeddedDatabase, version: int) -> State:
    return {name: database.query_arrow(sql.format(version=version)).to_pylist() for name, sql in _TABLES.items()}


def serial(zone: LandingZone) -> tuple[dict[int, State], list[object]]:
    """Every batch once, in order, for both versions."""
    database, online = EmbeddedDatabase(), MemoryOnlineStore()
    database.ensure(schema_job(fs.Project((V1, V2))))
    for view in (V1, V2):
        for batch in zone.batches():
            apply_batches(view, [batch], zone, database, online)
    return {version: state(database, version) for version in (1, 2)}, values(online)


def values(online: MemoryOnlineStore) -> list[object]:
    return [online.read("user", ["1", "2", "3"], [view["last_price"]], NOW) for view in (V1, V2)]


def history(seed: int, root: Path, database: EmbeddedDatabase, online: MemoryOnlineStore) -> LandingZone:
    """Runs over what waits, backfills over anything, a second version from some moment on; then all of it, calmly."""
    dice, zone = random.Random(seed), LandingZone(root)
    for crashing in (database, online):
        crashing.dice = dice  # type: ignore[attr-defined]
    declared = [V1]
    database.ensure(schema_job(fs.Project((V1,))))
    for _ in range(30):
        match dice.choice(("land", "land", "run", "run", "backfill", "version")):
            case "land":
                land(zone, dice)
            case "version":
                declared = [V1, V2]
                database.ensure(schema_job(fs.Project((V1, V2))))
            case _:  # runs and backfills differ in what they take only
                landed = zone.batches()
                some = dice.sample(landed, dice.randint(0, len(landed)))
                with suppress(KilledError, TransientError):
                    apply_batches(dice.choice(declared), some, zone, database, online)
    for crashing in (database, online):
        crashing.dice = None  # type: ignore[attr-defined]
    database.ensure(schema_job(fs.Project((V1, V2))))
    for view in (V2, V1):
        apply_batches(view, zone.batches(), zone, database, online)
    return zone


def differs(seed: int, root: Path, database: EmbeddedDatabase, online: MemoryOnlineStore) -> bool:
    """Whether the history left anything else than the serial run; the books are balanced in both."""
    zone = history(seed, root, database, online)
    expected, expected_values = serial(zone)
    found = {version: state(database, version) for version in (1, 2)}
    landed = sum(batch.rows for batch in zone.batches())
    for books in expected.values():
        counts = [sum(int(str(line[name])) for line in books["ledger"]) for name in ("rows_in", "logged", "filtered")]
        assert counts[0] == landed
        assert landed == counts[1] + counts[2] + len(books["quarantine"])
    database.close()
    return found != expected or values(online) != expected_values


@pytest.mark.parametrize("seed", SEEDS)
def test_any_interleaving_leaves_what_a_serial_run_leaves(seed: int, tmp_path: Path) -> None:
    assert not differs(seed, tmp_path, CrashingDatabase(), CrashingOnline())


class ForgetfulDatabase(CrashingDatabase):
    """Without the ledger's look-up: what is sent again is logged again."""

    def append(self, job: AppendJob) -> AppendReply:
        self._writer._applied.commit_seqs = lambda batch_ids: {}
        return super().append(job)


class LastWinsOnline(CrashingOnline):
    """Without the guard: whatever is pushed last counts."""

    def push(self, view: FeatureView, rows: pa.Table, commit_seqs: Sequence[int], **others: Any) -> PutCounts:
        self._hashes.clear()
        return super().push(view, rows.slice(rows.num_rows - 1) if rows.num_rows else rows, commit_seqs, **others)


@pytest.mark.parametrize(
    ("database", "online"), [(ForgetfulDatabase, CrashingOnline), (CrashingDatabase, LastWinsOnline)]
)
def test_without_ledger_or_guard_most_histories_differ(
    database: Callable[[], EmbeddedDatabase], online: Callable[[], MemoryOnlineStore], tmp_path: Path
) -> None:
    found = [differs(seed, tmp_path / str(seed), database(), online()) for seed in range(4)]
    assert sum(found) > len(found) / 2
