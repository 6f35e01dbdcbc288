"""A disk that fails: the database is unusable then, so its process ends, and the next one finds what was committed."""

import subprocess
from pathlib import Path

import pytest

from featurestore.errors import TransientError
from tests.featurestore.database.examples import job
from tests.featurestore.database.serving import client, process, settings_for
from tests.services import eventually

pytestmark = [pytest.mark.services, pytest.mark.system]


def test_a_failing_disk_ends_the_process_and_loses_nothing(tmp_path: Path, redis_url: str) -> None:
    settings = settings_for(tmp_path, redis_url)
    running = process(settings)
    with client(settings, timeout_s=20) as database:
        acknowledged = database.append(job(("before", 100)))
        inject = "inject=fsync,fdatasync:error=EIO"
        command = ["strace", "-f", "-q", "-e", "trace=fsync,fdatasync", "-e", inject, "-p", str(running.pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracing:
            try:
                eventually(lambda: is_traced(running.pid))
                with client(settings, timeout_s=5) as hasty, pytest.raises(TransientError):
                    hasty.append(job(("during", 100)))
                assert running.wait(timeout=60) == 1
            finally:
                running.kill()
                running.wait(timeout=60)
                tracing.terminate()
        running = process(settings)
        try:
            assert database.append(job(("before", 100))).commit_seqs == acknowledged.commit_seqs
            database.append(job(("during", 100)))
            rows = database.query_arrow(
                "SELECT count(*) AS n, count(DISTINCT (tie, sequence)) AS d FROM log.activity_v1"
            )
            assert rows.to_pylist() == [{"n": 200, "d": 200}]
        finally:
            running.terminate()
            running.wait(timeout=60)


def is_traced(pid: int) -> bool:
    """Whether every thread is."""
    return not any("TracerPid:\t0\n" in path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status"))
