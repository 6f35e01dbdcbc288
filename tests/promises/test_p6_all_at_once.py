"""P6: live pushes, a backfill, a rebuild, activations, erasures, a broken connection or a flush at once: when they are
done, online is the log, field by field. Negative controls: a plain HSET, an erasure that leaves the online store alone.
"""

import random
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
import redis

import featurestore as fs
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.entity_id import Piece
from featurestore.errors import StoreUnavailableError
from featurestore.landing.erasures import Erasure, Erasures
from featurestore.landing.zone import LandingZone
from featurestore.offline.lake import Lake
from featurestore.offline.log import Ledger
from featurestore.offline.newest import newest_rows
from featurestore.offline.tables import schema_job
from featurestore.offline.tiles import touched_tiles
from featurestore.offline.versions import logged_versions
from featurestore.online import redis_store
from featurestore.online.connection import Wire
from featurestore.online.memory import MemoryOnlineStore
from featurestore.online.octets import as_list
from featurestore.online.redis_store import RedisOnlineStore
from featurestore.online.values import PutCounts
from featurestore.online.writer import Encoded, fields_by_key
from featurestore.order import Order, tie
from featurestore.recovery import erase
from featurestore.recovery.online import fill, refill
from featurestore.versions import activate, mirror
from tests.featurestore.online.examples import EVENTS, NOW, NOW_US, SECOND, USER, append, row, table
from tests.featurestore.online.faults import Way, way_to

pytestmark = [pytest.mark.services, pytest.mark.slow]

ENTITIES = [str(number) for number in range(6)]
BATCHES = 12  # of each writer
PIECES = 3
READ_AT = [NOW, NOW + timedelta(seconds=10), NOW + timedelta(seconds=90)]


def visits(version: int) -> fs.FeatureView:
    return fs.FeatureView(
        "visits",
        USER,
        EVENTS,
        [
            fs.Feature("last_score", float, "score", online=True),
            fs.Aggregation("visits", "count", windows=("24s", "2m"), online=True),
            fs.Aggregation("best", "max", "score", windows=("2m",), online=True),
        ],
        version=version,
    )


VERSIONS = (visits(1), visits(2))
PROJECT = fs.Project(VERSIONS)


def plainly(wire: Wire, chunk: Encoded) -> PutCounts:
    """Negative control: write what comes."""
    names = [name for name, _ in chunk.fields]
    each = zip(as_list(chunk.keys), *(as_list(column) for _, column in chunk.fields), strict=True)
    wire.pipeline(
        [("HSET", key, *(part for pair in zip(names, row, strict=True) for part in pair)) for key, *row in each]
    )
    return PutCounts(chunk.rows)


class Platform:
    """The writers of one history, on one log and one Redis."""

    def __init__(self, seed: int, way: Way, client: redis.Redis, home: Path) -> None:
        self.dice, self.way, self.client = random.Random(seed), way, client
        self.database = EmbeddedDatabase()
        self.database.ensure(schema_job(PROJECT))
        self.store = RedisOnlineStore(way.url, timeout_s=10)
        self.holdings = erase.Holdings(
            project=PROJECT,
            zone=LandingZone(home / "landing", Erasures(home / "erasures")),
            database=self.database,
            lake=Lake(home / "lake"),
            online=self.store,
            now=lambda: NOW,
        )
        self.halfway = threading.Event()
        self._rows: dict[tuple[str, int], pa.Table] = {}

    def run(self) -> None:
        """All at once, until all are done; then what is not listed is pushed again, and erasures are finished."""
        actors = [
            lambda: self.write(VERSIONS[0], late=False),
            lambda: self.write(VERSIONS[1], late=False),
            lambda: self.write(VERSIONS[0], late=True),
            self.rebuild,
            self.choose,
            self.erase,
        ]
        threads = [threading.Thread(target=actor) for actor in actors]
        self.way.after(self.dice.randint(1, 40_000), self.dice.choice((lambda: True, self.flush)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        self.way.after(0, lambda: False)
        for view in VERSIONS:
            while missing := self.missing(view):
                for line in missing:
                    self.push(view, line)
        mirror(logged_versions(self.database), self.store)
        self.finish_erasures()

    def write(self, view: fs.FeatureView, *, late: bool) -> None:
        """A run after the other; some end between the log and the push, some in it. A backfill brings older events."""
        dice = random.Random(f"{view.target} {late} {self.dice.random()}")
        for batch in range(BATCHES):
            if batch == BATCHES // 2:
                self.halfway.set()
            ago = (20, 60) if late else (0, 20)
            places = [
                Order(NOW_US - dice.randint(*ago) * SECOND, NOW_US + batch, number, tie(f"{late} {batch}"))
                for number in range(dice.randint(1, 5))
            ]
            rows = table([row(dice.choice(ENTITIES), place, score=dice.random()) for place in places], view)
            [line] = append(self.database, view, rows)
            self._rows[view.target, line] = rows
            if dice.random() > 0.1:
                with suppress(StoreUnavailableError):
                    self.push(view, line)

    def push(self, view: fs.FeatureView, line: int) -> None:
        rows = self._rows[view.target, line]
        tiles = pa.concat_tables(touched_tiles(self.database, view, rows, [line]))
        self.store.push(view, rows, [line], tiles=tiles)

    def rebuild(self) -> None:
        for _ in range(2):
            for view in VERSIONS:
                for number in range(PIECES):
                    with suppress(StoreUnavailableError):
                        refill(view, Piece(number, PIECES), self.database, self.store, now=NOW)

    def choose(self) -> None:
        for version in (2, 1, 2):
            with suppress(StoreUnavailableError):
                activate(f"visits@v{version}", self.database, self.store)

    def erase(self) -> None:
        """Half of the entities, when they have rows; what comes after that has landed later, and stays."""
        assert self.halfway.wait(60)
        for entity_id in ENTITIES[::2]:
            erasure = erase.decide(self.holdings, USER, entity_id, NOW + timedelta(seconds=1))
            with suppress(StoreUnavailableError):
                self.carry_out(erasure)

    def carry_out(self, erasure: Erasure) -> None:
        erase.carry_out(self.holdings, erasure, progress=lambda *_: None)

    def finish_erasures(self) -> None:
        """As the job of that name has it: those that were broken off, then all, when no push can be on its way."""
        for erasure in self.holdings.erasures.all():
            if erasure.entity_id:
                self.carry_out(erasure)
        for erasure in self.holdings.erasures.all():
            erase.settle(self.holdings, erasure)

    def flush(self) -> bool:
        self.client.flushall()
        return False

    def missing(self, view: fs.FeatureView) -> Sequence[int]:
        ledger = Ledger()
        ledger.refresh(self.database)
        pushed = self.store.pushed(view)
        return [line.commit_seq for line in ledger.lines(view.target) if line.commit_seq not in pushed]

    def differences(self) -> list[str]:
        """Where Redis is not what the log says."""
        wrong = [] if self.store.active() == {"visits": 2} else ["active"]
        logged: dict[bytes, Mapping[bytes, bytes]] = {}
        for view in VERSIONS:
            for key, fields in fields_by_key(view, newest_rows(self.database, view), self.store._keys).items():
                logged[key] = {**logged.get(key, {}), **fields}
            filled = MemoryOnlineStore()
            fill(view, self.database, filled, now=NOW)
            features = [view[one.name] for one in view.online_features]
            for at in READ_AT:
                found = (one.read("user", ENTITIES, features, at) for one in (self.store, filled))
                wrong += [f"{view.target} {at} {a} {b}" for a, b in zip(*found, strict=True) if a != b]
        stored = {key: self.client.hgetall(key) for key in self.client.keys("fs:{user:*}")}
        wrong += [
            f"{key}: {stored.get(key)} {logged.get(key)}"
            for key in stored | logged
            if stored.get(key) != logged.get(key)
        ]
        return wrong


def differences_after(seed: int, url: str) -> list[str]:
    with tempfile.TemporaryDirectory() as home, way_to(url) as way, redis.Redis.from_url(url) as client:
        client.flushall()
        platform = Platform(seed, way, client, Path(home))
        with closing(platform.database), closing(platform.store):
            platform.run()
            return platform.differences()


@pytest.mark.parametrize("seed", range(2))
def test_when_all_are_done_online_is_the_log(redis_url: str, seed: int) -> None:
    assert differences_after(seed, redis_url) == []


def test_with_a_plain_hset_it_is_not(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_store, "put_rows", plainly)
    assert any(differences_after(seed, redis_url) for seed in range(20))


def test_with_erasures_that_leave_the_online_store_alone_it_is_not(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erase, "sweep_online", lambda *_: 0)
    monkeypatch.setattr(Platform, "rebuild", lambda _: None)  # it sweeps as well
    assert any(differences_after(seed, redis_url) for seed in range(20))
