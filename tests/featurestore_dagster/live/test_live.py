"""What users do in Dagster's pages and on its command line leaves the log right and frees what it held."""

import itertools
import json
import os
import re
import signal
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import psutil
import pyarrow as pa
import pytest
import redis
from dagster._core.scheduler.instigation import TickStatus

from featurestore.database.wire import to_ipc
from featurestore.landing.batch import Batch
from featurestore.store import Store
from featurestore.transform.rows import feature_rows
from featurestore_dagster.launcher.worker import WORKER_TAG, Worker
from featurestore_dagster.limits import peak, peak_runs, peaks_by_value, step_spans
from featurestore_dagster.names import LANDED_SENSOR, LANE_TAG
from featurestore_dagster.partitions import key_of
from featurestore_dagster.services import connect
from tests.featurestore_dagster.live.location import LAST_CLICK, LAST_ORDER, ORDERS, PROJECT, SEARCHES
from tests.featurestore_dagster.live.platform import (
    BACKFILL,
    DOWNSTREAM,
    REEXECUTE,
    TERMINATE,
    WITHIN_S,
    Live,
    live_dagster,
)
from tests.services import Redis, eventually

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(400)]

ASSETS = ("raw/clicks", "features/last_click", "online/last_click")
MAX_RUNS, POOL = 3, 2  # dagster.yaml
LONG_AGO = 50  # hours
JOB, BATCH = re.compile(r"job_id=(\w+)"), re.compile(r"'(\w+/[^']+\.parquet)'")
Status = dg.DagsterRunStatus


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, redis_server: Redis) -> Generator[Live]:
    with live_dagster(tmp_path_factory.mktemp("live"), redis_server.url, run_interval_s=1) as found:
        yield found


def test_batches_of_past_hours_are_applied_by_forked_runs(live: Live) -> None:
    """As after days of standing still."""
    now = datetime.now(UTC)
    batches = [live.land(1, 2, 3, at=now - timedelta(hours=hours)) for hours in (LONG_AGO, LONG_AGO, 2, 1)]
    live.settle(*batches)
    assert [live.applied()[batch.batch_id] for batch in batches] == [3, 3, 3, 3]
    assert len(live.log()) == 12
    runs = live.instance.get_runs(dg.RunsFilter(job_name="apply_batches"))
    assert {run.status for run in runs} == {Status.SUCCESS}
    assert all(WORKER_TAG in run.tags for run in runs)
    for run in runs:
        assert named_by(live, run) == named_in(run)


def named_by(live: Live, run: dg.DagsterRun) -> set[str]:
    """The batches to which the logs lead: the run's names its write jobs, the database service's what was in each."""
    jobs = {found[1] for entry in live.instance.all_logs(run.run_id) if (found := JOB.search(entry.user_message))}
    said = (live.project.parent / "logs" / "database.log").read_text().splitlines()
    return {batch for line in said if (job := JOB.search(line)) and job[1] in jobs for batch in BATCH.findall(line)}


def named_in(run: dg.DagsterRun) -> set[str]:
    """What the sensor gave it."""
    return set(BATCH.findall(str(run.run_config)))


def test_values_that_services_write_are_logged_and_online_once_however_often_they_are_sent(live: Live) -> None:
    """In JSON and in Arrow, through the queue; from there the usual way."""
    at = datetime.now(UTC)
    pages = {"71": "/json", "72": "/arrow"}
    of_json, of_arrow = (
        {"entity_id": user, "feature_name": "page", "value": page, "event_timestamp": at}
        for user, page in pages.items()
    )
    plain = {"table": "features", "data": {**of_json, "event_timestamp": at.isoformat()}, "job_id": "in-json"}
    jobs = {
        "in-json": {b"json": json.dumps({**plain, "response_key": "duckdb_reply:in-json"})},
        "in-arrow": {
            b"kind": b"features",
            b"header": b'{"job_id": "in-arrow"}',
            b"rows": to_ipc(pa.Table.from_pylist([of_arrow])),
            b"reply": b"duckdb_reply:in-arrow",
        },
    }
    batches = {f"clicks/job={name}/{0:020d}.parquet" for name in jobs}
    with redis.Redis.from_url(live.settings.redis.queues, protocol=2) as queues:
        for name, fields in [*jobs.items()] * 3:
            queues.xadd("duckdb_write_queue", fields)  # type: ignore[arg-type]
            replied: Any = queues.blpop([f"duckdb_reply:{name}"], timeout=60)
            assert set(json.loads(replied[1])["batch_ids"]) <= batches
            if name == "in-arrow":
                eventually(lambda: batches <= set(live.applied()) and not live.live(), WITHIN_S)
    assert sorted(entity for entity, *_ in live.log() if entity in pages) == sorted(pages)
    with connect(live.settings)() as services:
        store = Store(PROJECT, services.database, services.online)
        found = store.online({"user_id": [int(user) for user in pages]}, [LAST_CLICK])
    assert [(one["page"].value, one["page"].event_timestamp) for one in found] == [
        (page, at) for page in pages.values()
    ]


def test_an_asset_that_is_materialized_becomes_features(live: Live) -> None:
    """Somebody else's: landed by a run of its own, then logged and online, and upstream of all of it in the graph."""
    assert live.command("asset", "materialize", "-f", "location.py", "--select", "warehouse/orders").wait(WITHIN_S) == 0
    eventually(lambda: bool(live.zone.batches(ORDERS.name)), WITHIN_S)
    live.settle(*live.zone.batches(ORDERS.name))
    with connect(live.settings)() as services:
        found = Store(PROJECT, services.database, services.online).online({"user_id": [1, 2]}, [LAST_ORDER])
    assert [row["last_price"].value for row in found] == [5.0, 7.5]
    assert {entity for entity, *_ in live.log("last_order")} == {"1", "2"}
    way = [["warehouse", "orders"], ["source", "orders"], ["raw", "orders"], ["features", "last_order"]]
    for path, next_path in itertools.pairwise(way):
        assert {"path": next_path} in live.ask(DOWNSTREAM, key={"path": path})["dependedByKeys"]


def test_a_backfill_of_a_range_of_hours_is_one_run_and_changes_nothing(live: Live) -> None:
    now, log = datetime.now(UTC).replace(minute=0), live.log()
    hours = [key_of(now - timedelta(hours=number)) for number in (2, 1)]
    params = {"partitionNames": hours, "assetSelection": [{"path": path.split("/")} for path in ASSETS]}
    launched = live.ask(BACKFILL, p=params)
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    of_backfill = dg.RunsFilter(tags={"dagster/backfill": launched["backfillId"]})
    eventually(lambda: any(run.is_finished for run in live.instance.get_runs(of_backfill)), WITHIN_S)
    [run] = live.instance.get_runs(of_backfill)
    assert run.status is Status.SUCCESS
    assert (run.tags["dagster/asset_partition_range_start"], run.tags["dagster/asset_partition_range_end"]) == tuple(
        hours
    )
    assert live.log() == log


def test_hours_are_done_again_from_the_command_line_though_their_files_were_compacted(live: Live) -> None:
    log, applied = live.log(), live.applied()
    now = datetime.now(UTC).replace(minute=0)
    long_ago, first, last = (key_of(now - timedelta(hours=hours)) for hours in (LONG_AGO, 2, 1))
    assert live.command("asset", "materialize", "-f", "location.py", "--select", "landing/clicks").wait(WITHIN_S) == 0
    compacted = live.instance.get_latest_materialization_event(dg.AssetKey(["landing", "clicks"]))
    assert compacted
    assert compacted.asset_materialization
    count = compacted.asset_materialization.metadata["compacted_batches"].value
    assert isinstance(count, int)
    assert count >= 2  # more, if an hour ended meanwhile
    before = {run.run_id for run in live.instance.get_runs()}
    job = ("-w", "workspace.yaml", "-j", "apply_batches")
    commands = [
        live.command("asset", "materialize", "-f", "location.py", "--select", ",".join(ASSETS),
                     "--partition-range", f"{first}...{last}"),
        live.command("job", "launch", *job, "--tags", json.dumps({"dagster/partition": long_ago})),
        live.command("job", "backfill", *job, "--from", long_ago, "--to", long_ago, "--noprompt"),
    ]  # fmt: skip
    said = [live.said(name) for name in ("asset", "job")]
    assert [command.wait(2 * WITHIN_S) for command in commands] == [0, 0, 0], [path.read_text() for path in said]
    eventually(lambda: not live.live(), WITHIN_S)
    done = [run for run in live.instance.get_runs() if run.run_id not in before]
    assert [run.status for run in done] == [Status.SUCCESS] * len(commands)
    assert (live.log(), live.applied()) == (log, applied)


def test_a_run_that_is_done_again_changes_nothing(live: Live) -> None:
    log = live.log()
    [parent, *_] = live.instance.get_runs(dg.RunsFilter(job_name="apply_batches", statuses=[Status.SUCCESS]))
    again = live.ask(REEXECUTE, id=parent.run_id)
    assert again["__typename"] == "LaunchRunSuccess", again
    assert live.ended(again["run"]["runId"]) is Status.SUCCESS
    assert live.log() == log


def test_a_cancelled_run_frees_its_place_and_its_batch_is_applied_later(live: Live) -> None:
    live.hold()
    batch = live.land(4, 5)
    run_id = live.run_of(batch)
    assert live.claimed() == 1
    assert live.ask(TERMINATE, id=run_id)["__typename"] == "TerminateRunSuccess"
    assert live.ended(run_id) is Status.CANCELED
    live.go_on()
    eventually(lambda: live.claimed() == 0 or bool(live.live()), WITHIN_S)
    live.settle(batch)
    assert live.applied()[batch.batch_id] == 2
    assert len([row for row in live.log() if row[1] == naive(batch.created_at)]) == 2
    assert live.claimed() == 0


def test_a_killed_run_frees_its_place_and_its_batch_is_applied_later(live: Live) -> None:
    live.hold()
    batch = live.land(6)
    run_id = live.run_of(batch)
    os.kill(Worker.of(live.run(run_id).tags[WORKER_TAG]).pid, signal.SIGKILL)
    assert live.ended(run_id) is Status.FAILURE  # seen by run monitoring
    live.go_on()
    live.settle(batch)
    assert len([row for row in live.log() if row[1] == naive(batch.created_at)]) == 1
    eventually(lambda: live.claimed() == 0, WITHIN_S)


def test_every_limit_holds_with_the_command_line_beside_the_sensor(live: Live) -> None:
    began = datetime.now(UTC).timestamp()
    live.hold()
    first = [live.land(7), live.land(8, source=SEARCHES)]
    for batch in first:
        live.run_of(batch)
    second = [live.land(number) for number in range(10, 13)] + [live.land(9, source=SEARCHES)]
    by_hand = ("--select", "features/last_click", "--partition", key_of(first[0].hour))
    with live.command("asset", "materialize", "-f", "location.py", *by_hand) as beside:
        eventually(lambda: beside.poll() is not None or started_by_hand(live, began), WITHIN_S)
        assert beside.poll() is None, live.said("asset").read_text()
        live.go_on()
        live.settle(*first, *second)
        assert beside.wait(WITHIN_S) == 0
    assert 2 <= peak_runs(live.instance, tag=LANE_TAG) <= MAX_RUNS
    assert set(peaks_by_value(live.instance, LANE_TAG).values()) == {1}
    assert peak(step_spans(live.instance, "apply_")) == POOL
    assert live.claimed() == 0


def test_a_backlog_of_one_partition_is_worked_on_by_several_workers(live: Live) -> None:
    """And leaves what a worker alone would."""
    began = datetime.now(UTC).timestamp()
    live.hold()
    batches = [live.land(number, number + 1) for number in range(20, 36, 2)]
    assert len({batch.chain for batch in batches}) == 1
    eventually(lambda: len([run for run in live.live() if live.is_in_step(run)]) >= 2, WITHIN_S)
    live.go_on()
    live.settle(*batches)
    spans = [span for span in step_spans(live.instance, "apply_last_click") if span[1] > began]
    assert peak(spans) == POOL
    assert peak_runs(live.instance, tag=LANE_TAG) <= MAX_RUNS
    serial = [feature_rows(LAST_CLICK, live.zone.read(batch), batch).rows for batch in batches]
    expected = pa.concat_tables(serial).to_pylist()
    with connect(live.settings)() as services:
        query = f"SELECT {', '.join(expected[0])} FROM log.last_click_v1 WHERE sequence >= $start ORDER BY sequence"
        logged = services.database.query_arrow(query, {"start": batches[0].start}).to_pylist()
    assert logged == expected


def test_a_daemon_that_dies_in_a_tick_forgets_nothing_and_does_nothing_twice(live: Live) -> None:
    code = [live.program("dagster-code"), *live.program("dagster-code").children(recursive=True)]
    batches = suspended_in_a_tick(live, code)
    kill_daemon(live)  # while it waits for the sensor
    for process in code:
        process.resume()
    live.start(live.children["dagster-daemon"].program)
    live.settle(*batches)

    runs = live.instance.get_runs_count()
    batches.append(live.land(21))
    eventually(lambda: live.instance.get_runs_count() > runs, WITHIN_S)
    kill_daemon(live)  # while it makes the run, or launches it
    live.start(live.children["dagster-daemon"].program)
    live.settle(*batches)
    assert [live.applied()[batch.batch_id] for batch in batches] == [1, 1]
    for batch in batches:
        assert len([row for row in live.log() if row[1] == naive(batch.created_at)]) == 1


def suspended_in_a_tick(live: Live, code: list[psutil.Process]) -> list[Batch]:
    """Stop the code servers, land a batch, and wait until the daemon waits for the sensor of landed batches.

    It asks one sensor at a time, and waits for a minute for each: another one is let go, and it is tried again.
    """
    batches = list[Batch]()
    while True:
        since = datetime.now(UTC).timestamp()
        for process in code:
            process.suspend()
        batches.append(live.land(20))
        eventually(lambda: bool(ticking(live)), WITHIN_S)
        found = ticking(live)
        if found.get(LANDED_SENSOR, 0.0) >= since:
            return batches
        for process in code:
            process.resume()
        eventually(lambda found=found: not found.items() & ticking(live).items(), WITHIN_S)


def ticking(live: Live) -> dict[str, float]:
    """The sensors that are at work, and since when."""
    states = live.instance.all_instigator_state()
    last = {one.name: live.instance.get_ticks(one.instigator_origin_id, one.selector_id, limit=1) for one in states}
    return {name: tick.timestamp for name, ticks in last.items() for tick in ticks if tick.status is TickStatus.STARTED}


def kill_daemon(live: Live) -> None:
    live.program("dagster-daemon").kill()
    eventually(lambda: live.children["dagster-daemon"].exit_code() is not None, WITHIN_S)


def started_by_hand(live: Live, began: float) -> bool:
    """Whether a run that is none of the sensor's has come as far as its step, or to the pool's door."""
    records = live.instance.get_run_records(dg.RunsFilter(statuses=[Status.STARTED]))
    return any(LANE_TAG not in record.dagster_run.tags and (record.start_time or 0) > began for record in records)


def naive(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(tzinfo=None)
