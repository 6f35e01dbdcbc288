"""P6, windows: read online they are those of a training set at the same time, to the bit, whatever happened on the way.

Random histories: late, duplicate, future and out-of-order events, many on the edges of hops; runs that overlap, crash
between any two steps, are started twice or do an old batch again; an online store that is emptied. At the end, what the
store does not list as pushed is pushed, and that is all the healing there is. The negative controls are the shortcuts
one would take.
"""

import random
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import pyarrow as pa
import pytest
import redis

import featurestore as fs
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.database.jobs import AppendJob, LedgerLine
from featurestore.errors import StoreUnavailableError
from featurestore.landing.batch import Batch, from_micros
from featurestore.landing.schema import landed_schema
from featurestore.offline import tiles as offline
from featurestore.offline.log import Ledger
from featurestore.offline.tables import schema_job
from featurestore.online import memory
from featurestore.online import tiles as online
from featurestore.online.memory import MemoryOnlineStore
from featurestore.online.redis_store import RedisOnlineStore
from featurestore.online.store import OnlineStore
from featurestore.online.tiles import GUARD
from featurestore.online.values import PutCounts
from featurestore.store import Store
from featurestore.transform.rows import feature_rows
from featurestore.windows import Window
from tests.windows import differing

SECOND = 1_000_000
START_US = int(datetime(2026, 5, 4, 12, tzinfo=UTC).timestamp()) * SECOND
LONGEST_S = 120
HISTORIES = 6

FUNCTIONS = ("count", "sum", "mean", "min", "max", "first", "last")
USER = fs.Entity("user", key="user_id")
EVENTS = fs.KafkaSource(
    "events",
    timestamp="at",
    schema={"user_id": str, "x": float | None, "n": int | None, "s": str | None, "b": bool | None},
)


def project() -> fs.Project:
    view = fs.FeatureView(
        "activity",
        USER,
        EVENTS,
        [
            *(fs.Aggregation(f"x_{one}", one, "x", windows=("24s", "2m"), online=True) for one in FUNCTIONS),
            fs.Aggregation("n_sum", "sum", "n", where="n > 0 OR x > 1", windows=("50s",), dtype=int, online=True),
            fs.Aggregation("s_max", "max", "s", windows=("2m",), dtype=str, online=True),
            fs.Aggregation("b_last", "last", "b", windows=("2m", "24s"), dtype=bool, online=True),
            fs.Aggregation("offline_only", "sum", "x", windows=("1h",)),
        ],
    )
    return fs.Project((view,))


@dataclass
class Emptied:
    """An online store, and how it loses everything."""

    store: OnlineStore
    empty: Callable[[], object]


class LossyStore(MemoryOnlineStore):
    """A store in memory that can be emptied, and says so to a push in pieces, as Redis does."""

    epoch = 0

    def begin(self) -> str:
        return str(self.epoch)

    def empty(self) -> None:
        self.epoch += 1
        self._hashes.clear()
        self._pushed.clear()

    def push(self, *args: Any, since: str | None = None, **kwargs: Any) -> PutCounts:
        if since is not None and since != self.begin():
            raise StoreUnavailableError("memory", "here", "it was emptied during a push")
        return super().push(*args, **kwargs)


def in_memory() -> Emptied:
    store = LossyStore()
    return Emptied(store, store.empty)


@pytest.fixture
def in_redis(redis_url: str) -> Generator[Emptied]:
    store = RedisOnlineStore(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        yield Emptied(store, client.flushall)
    store.close()


@dataclass
class History:
    """What happens to the events of two users."""

    seed: int
    online: Emptied
    project: fs.Project = field(default_factory=project)
    database: EmbeddedDatabase = field(default_factory=EmbeddedDatabase)
    now_us: int = START_US
    landed: list[tuple[Batch, pa.Table]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.database.ensure(schema_job(self.project))
        [self.view] = self.project.feature_views

    def arrive(self) -> int:
        """A batch of events, most of them just now, some late, some ahead of the clock, many on a hop's edge."""
        chance = self.chance
        self.now_us += chance.choice([0, SECOND, 2_500_000, 7 * SECOND])
        rows: list[dict[str, Any]] = []
        for _ in range(chance.randint(1, 4)):
            late_s = chance.choice([0, 0, 1, 2, 7, 24, 40, 50, 120, 130, -3, -20])
            at_us = self.now_us - late_s * SECOND - chance.choice([0, 0, 1, 400_000])
            rows.append(self.event(at_us // SECOND * SECOND if chance.random() < 0.4 else at_us))
        if rows and chance.random() < 0.2:
            rows.append(dict(rows[-1]))  # sent twice
        return self.land(rows)

    def arrive_at_the_ends(self) -> int:
        """Events at both ends of each window, whose tiles a ring has to hold at once, and ahead of the clock."""
        self.now_us += (12_500_000 - self.now_us % (10 * SECOND)) % (10 * SECOND)  # inside a tile of every ring
        return self.land([self.event(self.now_us - age_s * SECOND) for age_s in (-1, 0, 24, 50, 120) * 3])

    def event(self, at_us: int) -> dict[str, Any]:
        chance = self.chance
        return {
            "event_timestamp": from_micros(at_us).replace(tzinfo=None),
            "user_id": chance.choice("ab"),
            "x": chance.choice([None, 0.1, 0.2, 0.3, 1e16, -1e16, -7.7, 3.3, -0.0]),
            "n": chance.choice([None, 1, -(2**40), 2**40]),
            "s": chance.choice([None, "", "a", "é"]),
            "b": chance.choice([None, True, False]),
        }

    def land(self, events: Sequence[dict[str, Any]]) -> int:
        rows = [{"sequence": 20 * len(self.landed) + number, **one} for number, one in enumerate(events)]
        batch = Batch(
            batch_id=f"events/{len(self.landed)}.parquet",
            source="events",
            start=0,
            end=len(rows),
            rows=len(rows),
            created_at=from_micros(self.now_us),
            min_event_timestamp=None,
            max_event_timestamp=None,
            schema_version=EVENTS.schema_version,
            digest="",
            bytes=0,
        )
        self.landed.append((batch, pa.Table.from_pylist(rows, landed_schema(EVENTS))))
        return len(self.landed) - 1

    def run(self, number: int) -> Generator[None]:
        """What `apply_batches` does, step by step; it may crash wherever it yields."""
        batch, table = self.landed[number]
        made = feature_rows(self.view, table, batch)
        line = LedgerLine(
            batch_id=batch.batch_id,
            target=self.view.target,
            code_digest=self.view.digest,
            rows_in=made.rows_in,
            logged=made.rows.num_rows,
            filtered=0,
            quarantined=0,
        )
        lines = pa.repeat(pa.scalar(0, pa.int32()), made.rows.num_rows)
        yield
        job = AppendJob(
            batch.batch_id,
            self.view.target,
            (line,),
            made.rows.append_column("line", lines),
            made.quarantined.append_column("line", lines.slice(0, 0)),
        )
        commit_seqs = self.database.append(job).commit_seqs
        yield
        since = self.online.store.begin()
        tiles = self.tiles(made.rows, commit_seqs)
        yield
        nothing = made.rows.slice(0, 0)
        for place in self.chance.sample(range(tiles.num_rows), tiles.num_rows):
            self.put(nothing, tiles.slice(place, 1), since)
            yield
        self.online.store.push(self.view, nothing, commit_seqs, since=since)

    def tiles(self, rows: pa.Table, commit_seqs: Any) -> pa.Table:
        return pa.concat_tables(offline.touched_tiles(self.database, self.view, rows, commit_seqs))

    def put(self, nothing: pa.Table, tile: pa.Table, since: str) -> None:
        self.online.store.push(self.view, nothing, [], tiles=tile, since=since)

    def happen(self) -> None:
        """Runs that overlap; then what is not listed is done until everything is."""
        live: list[Generator[None]] = []
        for _ in range(12):
            number = self.arrive()
            live.append(self.run(number))
            if self.chance.random() < 0.3:
                live.append(self.run(self.chance.randrange(number + 1)))  # started twice, or an old one again
            if self.chance.random() < 0.05:
                self.online.empty()
            for _ in range(self.chance.randint(1, 25)):
                self.step(live, may_crash=True)
        live.append(self.run(self.arrive_at_the_ends()))
        while live or self.unlisted():
            if not live:
                live = [self.run(number) for number in self.unlisted()]
            self.step(live, may_crash=False)

    def step(self, live: list[Generator[None]], *, may_crash: bool) -> None:
        if not live:
            return
        run = self.chance.choice(live)
        try:
            over = next(run, "done") == "done"
        except StoreUnavailableError:  # the store was emptied in the middle
            over = True
        if over or (may_crash and self.chance.random() < 0.05):
            live.remove(run)

    def unlisted(self) -> list[int]:
        ledger, pushed = Ledger(), self.online.store.pushed(self.view)
        ledger.refresh(self.database)
        lines = {row.batch_id: row.commit_seq for row in ledger.lines(self.view.target)}
        return [
            number
            for number, (batch, _) in enumerate(self.landed)
            if batch.batch_id not in lines or lines[batch.batch_id] not in pushed
        ]

    def mismatches(self) -> Iterator[str]:
        """Where an online read differs from a training set at the time it answers for."""
        times = [from_micros(self.now_us + step * SECOND // 2) for step in range(-2, 2 * LONGEST_S + 20, 3)]
        store = Store(self.project, self.database, self.online.store)
        yield from (f"seed {self.seed}, {one}" for one in differing(store, self.view, ["a", "b"], times))


def mismatches(histories: int, where: Callable[[], Emptied], of: type[History] = History) -> Iterator[str]:
    for seed in range(histories):
        online = where()
        online.empty()
        history = of(seed, online)
        history.happen()
        yield from history.mismatches()
        history.database.close()


def test_online_equals_offline() -> None:
    assert list(mismatches(HISTORIES, in_memory)) == []


@pytest.mark.services
def test_online_equals_offline_in_redis(in_redis: Emptied) -> None:
    assert list(mismatches(2, lambda: in_redis)) == []


# ---- the shortcuts


def without_a_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "overwrites", lambda new, stored: True)


def with_floor_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "tile_sql", lambda column, hop_us: f"(epoch_us({column}) // {hop_us})")


def with_a_ring_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Window, "ring_tiles", property(lambda self: self.length_us // self.hop_us))


def at_the_clocks_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online, "answered_for", lambda now_us, newest_us: now_us)


@pytest.mark.parametrize("shortcut", [without_a_guard, with_floor_tiles, with_a_ring_too_small, at_the_clocks_now])
def test_a_shortcut_fails(shortcut: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    shortcut(monkeypatch)
    assert next(mismatches(50, in_memory), "") != ""


class Increments(LossyStore):
    """Adds what is new to what is stored, instead of making the tile anew."""

    def _put_tiles(self, view: fs.FeatureView, tiles: pa.Table) -> PutCounts:
        for one in online.encode_tiles(view, tiles, self._keys):
            ring = self._hashes[one.key]
            for slot, value in one.fields.items():
                ring[slot] = added(value, ring.get(slot))
        return PutCounts()


def added(value: bytes, stored: bytes | None) -> bytes:
    """The counts of one tile together; of two tiles, the newer one."""
    (k, _), (stored_k, _) = GUARD.unpack_from(value), GUARD.unpack_from(stored or value)
    if stored is None or k != stored_k:
        return value if stored is None or k > stored_k else stored
    one, other = (msgspec.msgpack.decode(raw[GUARD.size :]) for raw in (stored, value))
    both = [max(one[0], other[0]), (one[1] or 0) + (other[1] or 0), *other[2:]]
    return value[: GUARD.size] + msgspec.msgpack.encode(both)


@pytest.mark.parametrize("repeated", [True, False])
def test_increments_fail_where_anything_is_done_again(repeated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    own_rows = offline._TILES.replace("{which}", "{which} AND {fresh}")
    monkeypatch.setattr(offline, "_TILES", own_rows)
    history = History(1, Emptied(Increments(), lambda: None))
    for number in [history.arrive() for _ in range(12)]:
        for _ in range(1 + repeated):
            list(history.run(number))
    assert any("x_count" in one for one in history.mismatches()) is repeated
