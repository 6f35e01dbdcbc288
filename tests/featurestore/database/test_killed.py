"""kill -9 of the service, of Redis and of producers while others work: every acknowledged row is there once, whole."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pytest
import redis

from featurestore.database.client import QueueDatabase
from featurestore.database.queues import Queues
from featurestore.errors import TransientError
from featurestore.settings import Settings
from featurestore_cli.stack.ports import Ports
from tests.featurestore.database import dying
from tests.featurestore.database.examples import job
from tests.featurestore.database.serving import client, on_a_thread, process, settings_for
from tests.services import eventually, redis_process

pytestmark = [pytest.mark.services, pytest.mark.slow]

ROOT = Path(__file__).parents[3]
KILLS = 5
PRODUCERS = 3


@dataclass
class Sent:
    """What was acknowledged, and how often it had to be sent."""

    over: threading.Event = field(default_factory=threading.Event)
    commit_seqs: dict[str, set[int]] = field(default_factory=dict[str, set[int]])
    rows: dict[str, int] = field(default_factory=dict[str, int])
    resent: int = 0
    reads: int = 0
    torn: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])


def produce(settings: Settings, name: int, sent: Sent) -> None:
    """Batches of any size, two new ones to a job, and now and then an old one beside them."""
    dice = random.Random(name)
    done: dict[str, int] = {}
    with client(settings, timeout_s=2.0) as database:
        number = 0
        while not sent.over.is_set():
            number += 1
            batches = {f"{name}-{number}-{part}": dice.choice([0, 1, 300]) for part in "ab"}
            if done and dice.random() < 0.3:
                old = dice.choice(sorted(done))
                batches[old] = done[old]
            acknowledged = append(database, batches, f"{name}-{number}", sent)
            for batch, seq in zip(batches, acknowledged, strict=True):
                sent.commit_seqs.setdefault(batch, set()).add(seq)
                sent.rows[batch] = done[batch] = batches[batch]


def append(database: QueueDatabase, batches: dict[str, int], job_id: str, sent: Sent) -> tuple[int, ...]:
    one = job(*batches.items(), job_id=job_id)
    while True:
        try:
            return database.append(one).commit_seqs
        except TransientError:
            sent.resent += 1


LOOK = """
SELECT (SELECT count(*) FROM log.activity_v1) AS rows, (SELECT coalesce(sum(logged), 0)::BIGINT FROM applied) AS said
"""


def look(settings: Settings, sent: Sent) -> None:
    with client(settings, timeout_s=2.0) as database:
        while not sent.over.is_set():
            try:
                [seen] = database.query_arrow(LOOK).to_pylist()
            except TransientError:
                continue
            sent.reads += 1
            if seen["rows"] != seen["said"]:
                sent.torn.append((seen["rows"], seen["said"]))


def test_every_acknowledged_row_is_there_once(tmp_path: Path, redis_url: str) -> None:
    settings, sent = settings_for(tmp_path, redis_url), Sent()
    running = process(settings)
    with ThreadPoolExecutor(PRODUCERS + 1) as pool:
        working: list[Future[None]] = [pool.submit(produce, settings, name, sent) for name in range(PRODUCERS)]
        working.append(pool.submit(look, settings, sent))
        try:
            for _ in range(KILLS):
                goal = len(sent.rows) + 60
                eventually(lambda goal=goal: len(sent.rows) > goal, within_s=60)
                running.kill()
                running.wait(timeout=30)
                running = process(settings)
            eventually(lambda: len(sent.rows) > goal + 30, within_s=60)
        finally:
            sent.over.set()
            for one in working:
                one.result(timeout=60)
            running.kill()
            running.wait(timeout=30)
    with (
        redis.Redis.from_url(redis_url, protocol=2) as queues,
        on_a_thread(settings) as serving,
        client(settings) as database,
    ):
        eventually(lambda: queues.xlen(Queues().write) == 0)
        assert serving.counted("fs_database_open_seconds") > 0
        ledger = database.query_arrow("SELECT batch_id, logged, commit_seq FROM applied").to_pylist()
        rows = database.query_arrow(
            "SELECT count(*) AS n, count(DISTINCT (tie, sequence)) AS different FROM log.activity_v1"
        ).to_pylist()
    assert sent.reads > 0
    assert sent.torn == []
    assert len(ledger) == len({one["batch_id"] for one in ledger})
    assert {one["batch_id"]: one["logged"] for one in ledger} == sent.rows
    assert {one["batch_id"]: {one["commit_seq"]} for one in ledger} == sent.commit_seqs
    assert rows == [{"n": sum(sent.rows.values()), "different": sum(sent.rows.values())}]


LOGGED = """
SELECT
    line.batch_id,
    line.logged,
    (SELECT count(*) FROM hot.activity_v1 AS row WHERE row.commit_seq = line.commit_seq) AS rows,
    line.quarantined,
    (SELECT count(*) FROM quarantined_rows AS held WHERE held.batch_id = line.batch_id) AS held
FROM applied AS line
ORDER BY line.commit_seq
"""


def test_killed_at_any_step_of_a_group_it_is_there_whole_or_not_at_all(tmp_path: Path, redis_url: str) -> None:
    """Between the ledger, the rows and the commit; after it, before the replies; between these and the next job."""
    command = [sys.executable, "-m", "tests.featurestore.database.dying", redis_url, str(tmp_path)]
    subprocess.run(command, check=True, timeout=300, cwd=ROOT)
    steps = len(list(tmp_path.iterdir()))
    assert steps > 10
    whole = [("known", 3, 3, 0, 0), ("a", 5, 5, 0, 0), ("b", 2, 2, 1, 1), ("c", 0, 0, 0, 0), ("d", 1, 1, 0, 0)]
    found_before, told = list[int](), list[int]()
    for step in range(1, steps + 1):
        settings = dying.settings_of(redis_url, tmp_path, step)
        with duckdb.connect(str(settings.database_file)) as connection:
            there = connection.execute(LOGGED).fetchall()
        assert there in (whole[:1], whole)
        with redis.Redis.from_url(redis_url, protocol=2) as queues:
            replies = [queues.llen(f"{Queues(settings.namespace).replies}{one.job_id}") for one in dying.GROUP]
        assert sum(replies) in {0, len(dying.GROUP)}
        assert there == whole or not any(replies)
        found_before.append(len(there))
        told.append(sum(replies))
        with on_a_thread(settings), client(settings) as database:  # takes the jobs again, and gets them sent again
            seqs = {one.job_id: database.append(one).commit_seqs for one in (*dying.GROUP, dying.FIRST)}
        with duckdb.connect(str(settings.database_file)) as connection:
            assert connection.execute(LOGGED).fetchall() == whole
            ledger = dict(connection.execute("SELECT batch_id, commit_seq FROM applied").fetchall())
        named = {"first": ["known"], "second": ["known", "a"], "third": ["b", "c"], "fourth": ["a", "d"]}
        assert seqs == {one: tuple(ledger[batch] for batch in batches) for one, batches in named.items()}
    assert (found_before, told) == (sorted(found_before), sorted(told))
    assert {(1, 0), (5, 0), (5, 3)} == set(zip(found_before, told, strict=True))


def cut_tail(home: Path, size: int) -> None:
    """What a power cut leaves of Redis' append-only file: its last bytes are gone."""
    written = max(home.rglob("*.aof"), key=lambda path: path.stat().st_mtime_ns)
    with written.open("r+b") as file:
        file.truncate(max(0, written.stat().st_size - size))


@contextmanager
def producer(settings: Settings, name: str) -> Generator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "tests.featurestore.database.producing"]
    words = [settings.redis.url, str(settings.jobs_dir), name]
    with subprocess.Popen([*command, *words], stdout=subprocess.PIPE, text=True, cwd=ROOT) as started:
        try:
            yield started
        finally:
            started.kill()


def acknowledged_by(running: "subprocess.Popen[str]", lines: int | None = None) -> dict[str, int]:
    """The batches of the next lines, or of all that are left; a line that was cut by the kill does not count."""
    assert running.stdout is not None
    found = running.stdout.readlines() if lines is None else [running.stdout.readline() for _ in range(lines)]
    return {batch: int(rows) for batch, rows in (line.split() for line in found if line.endswith("\n"))}


def test_what_redis_and_producers_lose_was_never_acknowledged(tmp_path: Path) -> None:
    """Redis is killed and loses the end of its file; a producer is killed between its jobs."""
    home, port, dice = tmp_path / "redis", Ports().take(), random.Random(7)
    acknowledged: dict[str, int] = {}
    with ExitStack() as redises:
        server = redises.enter_context(redis_process(home, port=port))
        settings = settings_for(tmp_path / "data", server.url)
        with on_a_thread(settings) as serving:
            for turn in range(KILLS):
                with producer(settings, f"producer-{turn}") as running:
                    acknowledged |= acknowledged_by(running, dice.randint(5, 15))
                    with redis.Redis.from_url(server.url) as asked:
                        os.kill(asked.info("server")["process_id"], signal.SIGKILL)  # type: ignore[index]
                    server.child.stop()
                    cut_tail(home, dice.randint(1, 5_000))
                    server = redises.enter_context(redis_process(home, port=port))
                    acknowledged |= acknowledged_by(running, 5)
                    running.kill()
                    acknowledged |= acknowledged_by(running)
            eventually(lambda: serving.health.state == "ready", within_s=60)
            with client(settings) as database:
                ledger = database.query_arrow("SELECT batch_id, logged FROM applied").to_pylist()
                rows = database.query_arrow(
                    "SELECT count(*) AS n, count(DISTINCT (tie, sequence)) AS different FROM log.activity_v1"
                ).to_pylist()
    logged = {one["batch_id"]: one["logged"] for one in ledger}
    assert len(acknowledged) >= 10 * KILLS
    assert {batch: logged.get(batch) for batch in acknowledged} == acknowledged
    assert len(ledger) == len(logged) <= len(acknowledged) + KILLS  # of each producer, at most one was not told
    assert rows == [{"n": sum(logged.values()), "different": sum(logged.values())}]
