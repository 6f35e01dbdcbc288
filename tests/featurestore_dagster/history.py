"""A long history for Dagster's state: the runs that are in it, again and again, over the last weeks."""

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

RUNS_PER_HOUR = 100

# What is copied of a run's events: what pages and sensors ask for by type or asset. The rest is only found by its run.
_ASKED_FOR = """(dagster_event_type IN ('ASSET_MATERIALIZATION', 'ASSET_OBSERVATION', 'ASSET_CHECK_EVALUATION',
                 'PIPELINE_START', 'PIPELINE_SUCCESS', 'PIPELINE_FAILURE'))"""

# Each copy has the number n and happens as many hours ago as there are whole hundreds of runs after it.
_COPIES = """
CREATE TEMP TABLE copies AS
WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :runs),
templates AS (SELECT run_id, row_number() OVER (ORDER BY id) - 1 AS k, count(*) OVER () AS of_them
              FROM runs WHERE status IN ('SUCCESS', 'FAILURE'))
SELECT n, run_id AS old_id, substr(run_id, 1, 28) || printf('%08x', n + (SELECT max(id) FROM runs)) AS new_id,
       unixepoch() - 3600.0 * ((:runs - n) / :per_hour) AS at
FROM numbers JOIN templates ON n % of_them = k ORDER BY n
"""
_RUNS = """
INSERT INTO runs (run_id, snapshot_id, pipeline_name, mode, status, run_body, partition, create_timestamp,
                  update_timestamp, start_time, end_time)
SELECT new_id, snapshot_id, pipeline_name, mode, status, replace(run_body, old_id, new_id), partition,
       datetime(at, 'unixepoch'), datetime(at, 'unixepoch'), at, at
FROM copies JOIN runs ON run_id = old_id ORDER BY n
"""
_TAGS = """
INSERT INTO run_tags (run_id, key, value)
SELECT new_id, key, iif(key = 'dagster/partition', strftime('%Y-%m-%d-%H:00', at, 'unixepoch'), value)
FROM copies JOIN run_tags ON run_id = old_id ORDER BY n
"""
_EVENTS = f"""
INSERT INTO event_logs (id, run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition)
SELECT (n + 1) * :span + id, new_id, replace(replace(event, old_id, new_id), coalesce(partition, '-'), hour),
       dagster_event_type, datetime(at, 'unixepoch'), step_key, asset_key, iif(partition IS NULL, NULL, hour)
FROM (SELECT *,
             strftime('%Y-%m-%d-%H:00', at, 'unixepoch') AS hour FROM copies)
JOIN event_logs ON run_id = old_id WHERE {_ASKED_FOR} ORDER BY n
"""
_ASSET_TAGS = """
INSERT INTO asset_event_tags (event_id, asset_key, key, value, event_timestamp)
SELECT event.id, event.asset_key, tag.key, tag.value, event.timestamp
FROM asset_event_tags tag JOIN event_logs event ON event.id > :span AND event.id % :span = tag.event_id
"""
_CHECKS = """
INSERT INTO asset_check_executions (asset_key, check_name, run_id, execution_status, evaluation_event,
                                    evaluation_event_timestamp, create_timestamp)
SELECT asset_key, check_name, new_id, execution_status, replace(evaluation_event, old_id, new_id),
       datetime(at, 'unixepoch'), datetime(at, 'unixepoch')
FROM copies JOIN asset_check_executions ON run_id = old_id ORDER BY n
"""


def lengthen(state: Path, runs: int) -> None:
    """Add `runs` finished runs to the databases in `state`, with their events, tags and checks."""
    numbers = {"runs": runs, "per_hour": RUNS_PER_HOUR}
    with _writing(state / "runs.db") as database:
        database.execute("ATTACH ? AS events", [str(state / "event_log.db")])
        database.execute(_COPIES, numbers)
        [(span,)] = database.execute("SELECT max(id) + 1 FROM event_logs")
        for statement in (_RUNS, _TAGS, _EVENTS, _ASSET_TAGS, _CHECKS):
            database.execute(statement, {"span": span})


@contextmanager
def _writing(path: Path) -> Generator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=60)) as connection, connection:
        yield connection
