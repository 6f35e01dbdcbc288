"""The one way from batches to log and online store: exactly once in effect, whatever is repeated or interrupted."""

import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from featurestore.apply import apply_batches
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.definitions.view import FeatureView
from featurestore.errors import JobRefusedError, StoreUnavailableError
from featurestore.landing.batch import Batch, to_micros
from featurestore.landing.pending import RunLimits, Target, find_pending, plan_runs
from featurestore.landing.schema import landed_schema
from featurestore.landing.zone import LandingZone
from featurestore.offline.log import Ledger
from featurestore.offline.tables import schema_job
from featurestore.online.memory import MemoryOnlineStore
from featurestore.online.values import PutCounts
from featurestore_dagster.features.project import PROJECT
from featurestore_dagster.features.user import CREDIT_PROFILE, PROFILES
from tests.featurestore.shop import V1, V2, V3, Shop

NOW = datetime.now(UTC)


@pytest.fixture
def database() -> Iterator[EmbeddedDatabase]:
    database = EmbeddedDatabase()
    database.ensure(schema_job(PROJECT))
    yield database
    database.close()


@pytest.fixture
def zone(tmp_path: Path) -> LandingZone:
    return LandingZone(tmp_path)


def land(zone: LandingZone, upload_id: str, *rows: tuple[int, float, float, int]) -> Batch:
    """One upload of (user_id, income, debt, age_years); a row's place gives its time."""
    table = pa.Table.from_pylist(
        [
            {
                "sequence": place,
                "event_timestamp": to_micros(NOW) + place,
                "user_id": user_id,
                "income": income,
                "debt": debt,
                "age_years": age_years,
            }
            for place, (user_id, income, debt, age_years) in enumerate(rows)
        ],
        schema=landed_schema(PROFILES),
    )
    upload = zone.open_upload("profiles", upload_id)
    upload.write_part(table, first_row=0, end_row=len(rows))
    upload.publish(
        sha256="",
        size_bytes=1,
        schema=table.schema,
        schema_version="1",
        dead=[],
        now=lambda: NOW + timedelta(seconds=len(zone.batches())),
    )
    return next(batch for batch in zone.batches() if batch.chain == upload.chain)


class Unreachable(MemoryOnlineStore):
    """A store that loses its connection before anything is written."""

    def push(self, view: FeatureView, rows: pa.Table, commit_seqs: Sequence[int], **_: object) -> PutCounts:
        raise StoreUnavailableError("Redis", "127.0.0.1:1")


def log_of(database: EmbeddedDatabase) -> list[dict[str, object]]:
    return database.query_arrow("SELECT * FROM log.credit_profile_v1 ORDER BY ALL").to_pylist()


def test_rows_are_logged_quarantined_and_online(zone: LandingZone, database: EmbeddedDatabase) -> None:
    online = MemoryOnlineStore()
    batch = land(zone, "a", (1, 200.0, 50.0, 30), (2, -1.0, 1.0, 40), (1, 200.0, 100.0, 31))
    applied = apply_batches(CREDIT_PROFILE, [batch], zone, database, online)
    assert (applied.rows_in, applied.logged, applied.quarantined, applied.filtered) == (3, 2, 1, 0)
    assert (applied.new_batches, applied.skipped_batches) == (1, 0)
    [row] = online.read("user", ["1"], [CREDIT_PROFILE["debt_to_income_ratio"], CREDIT_PROFILE["age_years"]], NOW)
    assert [value.value for value in row.values()] == [0.5, 31]
    [quarantined] = database.query_arrow("SELECT batch_id, target, reason FROM quarantined_rows").to_pylist()
    assert quarantined["batch_id"] == batch.batch_id


def test_a_small_batch_costs_less_than_a_fifth_of_a_second_from_landing_to_online(
    zone: LandingZone, database: EmbeddedDatabase
) -> None:
    """Processor time, which other processes do not prolong; without Dagster nothing is waited for."""
    online, costs_s = MemoryOnlineStore(), []
    for number in range(5):
        began_s = time.process_time()
        batch = land(zone, f"{number}", *((user, 200.0, 50.0, 30 + number) for user in range(100)))
        apply_batches(CREDIT_PROFILE, [batch], zone, database, online)
        [row, *_] = online.read("user", ["7"], [CREDIT_PROFILE["age_years"]], NOW)
        costs_s.append(time.process_time() - began_s)
        assert row["age_years"].value == 30 + number
    assert statistics.median(costs_s) < 0.2


def test_applying_again_changes_nothing(zone: LandingZone, database: EmbeddedDatabase) -> None:
    online = MemoryOnlineStore()
    batches = [land(zone, name, (1, 100.0, 10.0 * n, 30)) for n, name in enumerate("abc")]
    apply_batches(CREDIT_PROFILE, batches[:2], zone, database, online)
    before = log_of(database)
    # Another grouping, with a new batch among old ones.
    applied = apply_batches(CREDIT_PROFILE, batches, zone, database, online)
    assert (applied.new_batches, applied.skipped_batches) == (1, 2)
    assert [row for row in log_of(database) if row in before] == before
    assert len(log_of(database)) == 3


def test_a_crash_between_log_and_redis_is_healed_by_applying_again(
    zone: LandingZone, database: EmbeddedDatabase
) -> None:
    batch = land(zone, "a", (1, 200.0, 50.0, 30))
    with pytest.raises(StoreUnavailableError):
        apply_batches(CREDIT_PROFILE, [batch], zone, database, Unreachable())
    assert len(log_of(database)) == 1
    ledger = Ledger()
    ledger.refresh(database)
    [line] = ledger.lines(CREDIT_PROFILE.target)
    online = MemoryOnlineStore()
    assert line.commit_seq not in online.pushed(CREDIT_PROFILE)
    apply_batches(CREDIT_PROFILE, [batch], zone, database, online)
    assert len(log_of(database)) == 1
    assert line.commit_seq in online.pushed(CREDIT_PROFILE)
    [row] = online.read("user", ["1"], [CREDIT_PROFILE["age_years"]], NOW)
    assert row["age_years"].value == 30


def test_other_code_under_the_same_version_is_refused(zone: LandingZone, database: EmbeddedDatabase) -> None:
    other = FeatureView(
        CREDIT_PROFILE.name, CREDIT_PROFILE.entity, PROFILES, CREDIT_PROFILE.features, where="income > 1000"
    )
    with pytest.raises(JobRefusedError, match="give credit_profile version=2, or take the change back"):
        apply_batches(other, [land(zone, "a", (1, 2.0, 1.0, 30))], zone, database, None)
    assert log_of(database) == []


def test_a_batch_without_rows_is_in_the_ledger_too(zone: LandingZone, database: EmbeddedDatabase) -> None:
    online = MemoryOnlineStore()
    applied = apply_batches(CREDIT_PROFILE, [land(zone, "a")], zone, database, online)
    assert (applied.new_batches, applied.rows_in) == (1, 0)
    ledger = Ledger()
    ledger.refresh(database)
    [line] = ledger.lines(CREDIT_PROFILE.target)
    assert line.commit_seq in online.pushed(CREDIT_PROFILE)


def test_eight_batches_of_one_partition_are_worked_on_by_two_at_once_and_equal_the_serial_result(
    tmp_path: Path,
) -> None:
    """Each worker waits in its transform for another one: alone it would wait in vain."""
    shop = Shop(tmp_path)
    batches = [shop.sell(price) for price in range(8)]
    pending = find_pending(batches, [Target(name=V1.target, source="clicks")], (), ())
    limits = RunLimits(lanes=2, run_rows=1000, run_batches=100, run_interval_s=10)
    groups = plan_runs(pending, live=(), troubles={}, requested={}, limits=limits, now=NOW)
    assert [group.lane for group in groups] == ["clicks.0", "clicks.1"]
    together, waited = threading.Barrier(2), threading.local()

    def meet(rows: pa.Table) -> pa.Table:
        if not hasattr(waited, "yes"):
            waited.yes = True
            together.wait(timeout=60)
        return rows

    view = replace(V2, transform=meet)
    shop.declare(V1, view)
    with ThreadPoolExecutor(len(groups)) as workers:
        for work in [workers.submit(shop.apply, view, *(one.batch for one in group.waiting)) for group in groups]:
            work.result()
    serial = replace(V3, features=view.features, transform=lambda rows: rows)
    shop.declare(V1, view, serial)
    shop.apply(serial, *batches)

    def log_of_version(version: int) -> list[dict[str, object]]:
        columns = "entity_id, event_timestamp, created_at, sequence, tie, last_price"
        return shop.database.query_arrow(f"SELECT {columns} FROM log.spend_v{version} ORDER BY ALL").to_pylist()

    assert log_of_version(2) == log_of_version(3)
    assert len(log_of_version(2)) == len(batches)
    [parallel], [one_by_one] = (shop.store.online({"user_id": [1]}, [one]) for one in (view, serial))
    assert parallel == one_by_one
