"""An erased entity is nowhere: in no byte of the data directory, in nothing that is read; all else is as it was."""

import struct
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import featurestore as fs
from featurestore.apply import apply_batches
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.database.jobs import AppendJob
from featurestore.errors import TerminalError
from featurestore.landing.batch import Batch, to_micros
from featurestore.landing.blob import BlobStorage
from featurestore.landing.dead_letters import DeadLetter
from featurestore.landing.disk import DiskStorage
from featurestore.landing.erasures import Erasures
from featurestore.landing.publish import Published
from featurestore.landing.retention import tend
from featurestore.landing.schema import landed_schema
from featurestore.landing.storage import Storage
from featurestore.landing.tables import Door, land_table
from featurestore.landing.zone import LandingZone, kafka_chain
from featurestore.offline.lake import Lake
from featurestore.offline.log import Ledger
from featurestore.offline.relations import log_relation
from featurestore.offline.tables import schema_job
from featurestore.offline.tiles import recent_tiles
from featurestore.online.memory import MemoryOnlineStore
from featurestore.recovery.backup import Places, back_up, restore_files
from featurestore.recovery.erase import SETTLES_AFTER, Erased, Holdings, carry_out, decide, is_due, settle
from featurestore.recovery.rebuild import rebuild
from featurestore.store import Store
from tests.stepwise import kill_at_each_step

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)

PERSON, OTHERS = 7_707_707_701, (11, 12, 13)

USER, SHOP = fs.Entity("user", key="user_id"), fs.Entity("shop", key="shop_id")
SALES = fs.KafkaSource("sales", timestamp="at", schema={"user_id": int, "shop_id": str, "price": float, "note": str})
PEOPLE = fs.UploadSource("people", timestamp="as_of", schema={"user_id": int, "income": float})
SPENT = fs.FeatureView(
    "spent",
    USER,
    SALES,
    [
        fs.Feature("last_price", float, "price", online=True),
        fs.Aggregation("n", "count", windows=("30d",), online=True),
    ],
    expect=[fs.Expectation("price >= 0")],
)
TURNOVER = fs.FeatureView(
    "turnover",
    SHOP,
    SALES,
    [
        fs.Feature("last_sale", float, "price", online=True),
        fs.Aggregation("t", "sum", "price", windows=("30d",), online=True),
    ],
)
MEANS = fs.FeatureView("means", USER, PEOPLE, [fs.Feature("income", float, online=True)])
PROJECT = fs.Project((SPENT, TURNOVER, MEANS))


class World:
    """A store in one directory: what landed may lie elsewhere."""

    def __init__(self, home: Path, storage: Storage | None = None) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home, self.file = home, home / "features.duckdb"
        self.storage = storage or DiskStorage(home / "landing")
        self.zone = LandingZone(self.storage, Erasures(home / "erasures"))
        self.lake, self.online = Lake(home / "lake", after_days=1), MemoryOnlineStore()

    def open(self) -> "closing[EmbeddedDatabase]":
        return closing(EmbeddedDatabase(self.file, lake_dir=self.lake.root))

    def sell(self, at: datetime, *rows: tuple[int, float], dead: tuple[DeadLetter, ...] = ()) -> Batch:
        """Land a batch of sales (user, price)."""
        chain = kafka_chain("sales", "c", "t", 0)
        tail = self.zone.tail(chain)
        start = tail.end if tail else 0
        values = [
            {
                "sequence": start + number,
                "event_timestamp": to_micros(at) - 1000 * number,
                "user_id": user,
                "shop_id": "corner",
                "price": price,
                "note": f"to {user}",
            }
            for number, (user, price) in enumerate(rows)
        ]
        published = self.zone.publish(
            chain, pa.Table.from_pylist(values, schema=landed_schema(SALES)),
            source="sales", start=start, end=start + len(rows) + len(dead), schema_version=SALES.schema_version,
            previous=tail, now=lambda: at, dead=dead,
        )  # fmt: skip
        assert isinstance(published, Published)
        return published.batch

    def upload(self, name: str, at: datetime, *users: int | None) -> None:
        rows = pa.table({"as_of": [at] * len(users), "user_id": users, "income": [float(user or 0) for user in users]})
        land_table(self.zone, Door.of(PEOPLE, PROJECT), name, rows, now=lambda: at)

    def fill(self) -> None:
        """Ten days of sales and uploads: cold and hot, compacted and not, logged, quarantined and dead letters."""
        for day in range(10, -1, -1):
            at = NOW - day * DAY
            letters = (
                (_letter(f'{{"user_id": {PERSON}, "at": "x"}}'), _letter('{"user_id": 11}')) if day % 5 == 0 else ()
            )
            self.sell(at, (PERSON, float(day)), (OTHERS[day % 3], 1.0), (PERSON, -1.0), dead=letters)
            self.sell(at + timedelta(minutes=1), (OTHERS[0], 2.0))
            if day % 4 == 0:
                self.upload(f"of-{day}", at, PERSON, OTHERS[0], None)
            if day == 5:
                self.apply()
                self.cool(at)
        self.apply()

    def apply(self) -> None:
        with self.open() as database:
            database.ensure(schema_job(PROJECT))
            for view in PROJECT.feature_views:
                apply_batches(view, self.zone.batches(view.source.name), self.zone, database, self.online)

    def cool(self, now: datetime) -> None:
        with self.open() as database:
            for view in PROJECT.feature_views:
                self.lake.move(database, view.name, now)
        tend(self.zone, SALES, now, is_applied=lambda _: True, is_in_lake=lambda _: False)

    def holdings(self, database: EmbeddedDatabase) -> Holdings:
        return Holdings(project=PROJECT, zone=self.zone, database=database, lake=self.lake, online=self.online)

    def erase(self, user: int = PERSON) -> Erased:
        with self.open() as database:
            holdings = self.holdings(database)
            erasure = decide(holdings, USER, str(user), datetime.now(UTC))
            return carry_out(holdings, erasure, progress=quiet)

    def rebuild(self) -> None:
        self.zone = LandingZone(self.storage, Erasures(self.home / "erasures"))
        rebuild(PROJECT, self.file, self.zone, self.lake, progress=quiet)

    def logged(self) -> object:
        """What is read of others: their rows of the log, in hot and cold, and landed."""
        with self.open() as database:
            logs = [
                database.query_arrow(
                    f"SELECT * EXCLUDE (commit_seq) FROM {log_relation(view)} ORDER BY ALL"
                ).to_pylist()
                for view in (SPENT, MEANS)
            ]
        rows = [row for b in self.zone.batches() for row in self.zone.read(b).to_pylist()]
        letters = sorted(one.raw for _, one in self.zone.dead_letters())
        mine = {str(PERSON), PERSON}
        return (
            [[row for row in log if row["entity_id"] not in mine] for log in logs],
            sorted((row for row in rows if row["user_id"] not in mine), key=repr),
            [raw for raw in letters if str(PERSON).encode() not in raw],
        )

    def check_accounts(self) -> None:
        """P1, and the online store is the log."""
        with self.open() as database:
            ledger = Ledger()
            ledger.refresh(database)
            for view in PROJECT.feature_views:
                [counted] = database.query_arrow(f"SELECT count(*) AS rows FROM {log_relation(view)}").to_pylist()
                lines = ledger.lines(view.target)
                assert sum(line.logged for line in lines) == counted["rows"]
                for batch in self.zone.batches(view.source.name):
                    line = ledger.rows[batch.batch_id, view.target]
                    assert batch.rows == line.rows_in == line.logged + line.filtered + line.quarantined + line.erased
            fresh = MemoryOnlineStore()
            for view in PROJECT.feature_views:
                apply_batches(view, self.zone.batches(view.source.name), self.zone, database, fresh)
            assert served(self.online) == served(fresh)


def served(online: MemoryOnlineStore) -> object:
    users, shops = [str(one) for one in (PERSON, *OTHERS)], ["corner"]
    of_users = [SPENT["last_price"], SPENT["n_30d"], MEANS["income"]]
    return online.read("user", users, of_users, NOW), online.read(
        "shop", shops, [TURNOVER["last_sale"], TURNOVER["t_30d"]], NOW
    )


def quiet(what: str, done: int, of: int) -> None:
    """Progress nobody looks at."""


def _letter(raw: str) -> DeadLetter:
    return DeadLetter(1, "no time", raw.encode(), str(PERSON).encode() if str(PERSON) in raw else None)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path / "home")
    made.fill()
    return made


def holds(home: Path, person: int = PERSON) -> set[str]:
    """The files below a directory with the person in them: in their bytes, or decoded."""
    wanted = (str(person).encode(), struct.pack("<q", person))
    found: set[str] = set()
    for path in (path for path in home.rglob("*") if path.is_file()):
        texts = [path.read_bytes(), *_decoded(path)]
        if any(one in text for one in wanted for text in texts):
            found.add(path.relative_to(home).as_posix())
    return found


def _decoded(path: Path) -> Iterator[bytes]:
    if path.suffix == ".parquet":
        yield repr(pq.ParquetFile(path).read().to_pylist()).encode()
    if path.suffix == ".duckdb":
        with duckdb.connect(str(path), read_only=True) as connection:
            tables = connection.execute("SELECT schema_name, table_name FROM duckdb_tables()").fetchall()
            for schema, table in tables:
                yield repr(connection.execute(f'FROM "{schema}"."{table}"').fetchall()).encode()


def test_nothing_is_left_and_everything_else_is_as_it_was(world: World) -> None:
    before, there = world.logged(), holds(world.home)
    kinds = {path.partition("/")[0] for path in there}
    assert kinds == {"landing", "lake", "features.duckdb"}  # the negative control: it is found where it is
    assert any(".r1.parquet" in path for path in there)
    assert any(".dead.parquet" in path for path in there)
    assert any("quarantined" in path for path in there)
    erased = world.erase()
    assert (erased.rows, erased.landed.dead_letters) == (11 * 2 + 3, 3)
    assert holds(world.home) == set()
    assert world.logged() == before
    world.check_accounts()
    [row] = world.online.read("user", [str(PERSON)], [SPENT["last_price"], SPENT["n_30d"], MEANS["income"]], NOW)
    assert [row[name].value for name in ("last_price", "n_30d", "income")] == [None, 0, None]
    assert world.erase().rows == 0  # and again
    assert world.logged() == before


@pytest.mark.services
def test_in_blob_storage_too(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    storage = BlobStorage(request.getfixturevalue("azurite").settings, f"erase-{uuid.uuid4().hex}")
    world = World(tmp_path / "home", storage)
    world.fill()
    before = world.logged()
    world.erase()
    assert world.logged() == before
    world.check_accounts()
    for source in ("sales", "people"):
        for path in _paths(storage, source):
            with storage.open(path) as file:
                data = file.read()
            assert str(PERSON).encode() not in data
            if path.endswith(".parquet"):
                assert str(PERSON) not in repr(pq.ParquetFile(pa.BufferReader(data)).read().to_pylist())


def _paths(storage: Storage, directory: str) -> Iterator[str]:
    yield from (f"{directory}/{name}" for name in storage.names(directory))
    for name in storage.directories(directory):
        yield from _paths(storage, f"{directory}/{name}")


def erase_in(home: Path) -> None:
    World(home).erase()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_any_step_it_is_gone_on_with(tmp_path: Path) -> None:
    home = tmp_path / "home"
    world = World(home)
    world.sell(NOW - 3 * DAY, (PERSON, 1.0), (11, 2.0), (PERSON, -1.0), dead=(_letter(f"x,{PERSON},y"),))
    world.upload("one", NOW, PERSON, 12)
    world.apply()
    world.cool(NOW)
    before = world.logged()

    def check() -> None:
        again = World(home)
        with again.open() as database:  # what a crash has left can be read, and is accounted for
            for view in PROJECT.feature_views:
                [counted] = database.query_arrow(
                    f"SELECT (SELECT count(*) FROM {log_relation(view)}) AS rows, (SELECT sum(logged) FROM applied "
                    f"WHERE target = '{view.target}') AS logged"
                ).to_pylist()
                assert counted["rows"] == counted["logged"]
        again.erase()
        assert holds(home) == set()
        assert again.logged() == before

    assert kill_at_each_step("tests.featurestore.recovery.test_erase:erase_in", home, check=check) > 20


def test_who_had_read_the_rows_before_cannot_bring_them_back(world: World) -> None:
    late = world.sell(NOW, (PERSON, 5.0), (11, 6.0), (PERSON, -5.0))
    with world.open() as database:
        sent: list[AppendJob] = []
        keep_job = _Kept(database, sent)
        for view in (SPENT, TURNOVER):  # a run that reads, and is slow
            apply_batches(view, [late], world.zone, keep_job, None)  # type: ignore[arg-type]
    world.erase()
    with world.open() as database:
        replies = [database.append(job) for job in sent]
        late_tiles = list(recent_tiles(database, SPENT, now=NOW, entity_ids=["nobody"]))
        # It pushes what it has in hand, though it is erased.
        world.online.push(SPENT, sent[0].rows, replies[0].commit_seqs, tiles=pa.concat_tables(late_tiles))
    world.apply()
    assert holds(world.home) == set()
    with pytest.raises(AssertionError):  # the negative control
        world.check_accounts()
    with world.open() as database:
        holdings = world.holdings(database)
        [erasure] = world.zone.erasures.all() if world.zone.erasures else []
        at = datetime.fromtimestamp(erasure.erased_at / 1e6, UTC)
        assert not is_due(erasure, at + SETTLES_AFTER - HOUR)
        assert is_due(erasure, at + SETTLES_AFTER + HOUR)
        settle(holdings, erasure)
    world.check_accounts()
    assert holds(world.home) == set()


class _Kept:
    """Takes jobs, and sends them later."""

    def __init__(self, database: EmbeddedDatabase, sent: list[AppendJob]) -> None:
        self._database, self._sent = database, sent

    def append(self, job: AppendJob) -> object:
        self._sent.append(job)
        return type("Reply", (), {"commit_seqs": (1,) * len(job.lines), "skipped": (False,) * len(job.lines)})()


def test_rows_that_land_later_are_kept_and_can_be_erased_again(world: World) -> None:
    world.erase()
    world.sell(datetime.now(UTC) + HOUR, (PERSON, 9.0))
    world.apply()
    [row] = world.online.read("user", [str(PERSON)], [SPENT["last_price"]], NOW + DAY)
    assert row["last_price"].value == 9.0
    world.check_accounts()
    assert world.erase().rows == 1
    assert holds(world.home) == set()


def test_neither_a_rebuild_nor_an_older_backup_brings_it_back(world: World, tmp_path: Path) -> None:
    places = Places(world.storage, world.lake.root, world.home / "erasures")
    back_up(places, tmp_path / "older", NOW, progress=quiet)
    before = world.logged()
    world.erase()
    world.rebuild()
    assert holds(world.home) == set()
    assert world.logged() == before

    back_up(places, tmp_path / "newer", NOW, progress=quiet)
    assert holds(tmp_path / "newer") == set()
    assert holds(tmp_path / "older") != set()
    for name in ("landing", "lake"):
        (world.home / name).rename(tmp_path / name)
    restore_files(tmp_path / "older", places, progress=quiet)
    assert holds(world.home) != set()  # the negative control
    world.rebuild()
    assert holds(world.home) == set()
    assert world.logged() == before
    back_up(places, tmp_path / "older", NOW, progress=quiet)  # into the same directory: what was there goes
    assert holds(tmp_path / "older") == set()


def test_a_receipt_of_before_says_so(world: World) -> None:
    with world.open() as database:
        store = Store(PROJECT, database, world.online)
        spine = pa.table({"user_id": [PERSON, 11], "event_timestamp": [NOW, NOW]})
        made = store.training_set(spine, [SPENT, MEANS])
        others = store.training_set(spine.slice(1), [SPENT, MEANS])
    world.erase()
    with world.open() as database:
        store = Store(PROJECT, database, world.online)
        assert store.reproduce(others.receipt, spine.slice(1)).table.equals(others.table)
        with pytest.raises(TerminalError, match=r"1 entity of kind user was erased since"):
            store.reproduce(made.receipt, spine)


def test_readers_see_nothing_while_files_still_hold_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise TerminalError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("featurestore.recovery.erase._take_out", fail)
        with pytest.raises(TerminalError, match="killed"):
            world.erase()
    assert holds(world.home) != set()
    with world.open() as database:
        store = Store(PROJECT, database, world.online)
        made = store.training_set(pa.table({"user_id": [PERSON], "event_timestamp": [NOW]}), [SPENT, MEANS])
        assert [made.table[name].to_pylist() for name in ("last_price", "n_30d", "income")] == [[None], [0], [None]]
        found = database.query_arrow(f"SELECT * FROM features WHERE entity_id = '{PERSON}'")
        assert found.num_rows == 0
    assert all(PERSON not in world.zone.read(batch)["user_id"].to_pylist() for batch in world.zone.batches())
    world.erase()
    assert holds(world.home) == set()


def test_an_entity_without_views_is_refused(world: World) -> None:
    with world.open() as database, pytest.raises(TerminalError, match="no view is of entity"):
        decide(replace(world.holdings(database)), fs.Entity("ghost", key="id"), "1", NOW)
