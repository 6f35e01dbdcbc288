"""A producer in a process of its own: prints `batch rows` once a batch is acknowledged, and goes on until it is killed.

python -m tests.featurestore.database.producing REDIS_URL JOBS_DIR NAME
"""

import sys
from pathlib import Path

from featurestore.database.client import QueueDatabase
from featurestore.errors import TransientError
from tests.featurestore.database.examples import job


def main(redis_url: str, jobs_dir: str, name: str) -> None:
    database = QueueDatabase(redis_url, timeout_s=2.0, jobs_dir=Path(jobs_dir))
    number, rows = 0, 0
    while True:
        batch, rows = f"{name}-{number}", (0, 1, 400, 9_000)[number % 4]  # the last ones go through files
        try:
            database.append(job((batch, rows)))
        except TransientError:
            continue
        print(batch, rows, flush=True)  # noqa: T201
        number += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
