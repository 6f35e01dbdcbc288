"""Large tables travel as files that a job names; no name leads out of their directory."""

import os
from pathlib import Path

import pytest
import redis

from featurestore.database.job_files import JobFiles
from featurestore.database.queues import Queues
from featurestore.database.wire import LARGE_BYTES, decode, encode
from featurestore.errors import DatabaseBusyError, JobRefusedError, TransientError
from tests.featurestore.database.examples import job, row, table
from tests.featurestore.database.serving import client, on_a_thread, settings_for
from tests.services import eventually

LARGE = job(("large", 9_000))
ROWS_FILE = b"rows_file"


@pytest.fixture
def files(tmp_path: Path) -> JobFiles:
    made = JobFiles(tmp_path / "jobs")
    (tmp_path / "secret.arrow").write_bytes(b"secret")
    (tmp_path / "jobs").mkdir()
    return made


def test_a_large_table_goes_to_a_file_and_a_small_one_does_not(files: JobFiles) -> None:
    assert LARGE.rows.nbytes > LARGE_BYTES
    fields = encode(LARGE, files.write)
    assert set(fields) == {b"kind", b"header", ROWS_FILE, b"quarantined"}
    whole = decode(files.fill(fields))
    assert whole.rows.equals(LARGE.rows)  # type: ignore[union-attr]
    files.remove(fields)
    with pytest.raises(TransientError, match="the job's rows are gone; send it again"):
        files.fill(fields)
    assert set(encode(job(("small", 10)), files.write)) == {b"kind", b"header", b"rows", b"quarantined"}


@pytest.mark.parametrize(
    "name",
    [
        "../secret.arrow",
        "jobs/../../secret.arrow",
        "{home}/secret.arrow",
        "file://{home}/secret.arrow",
        "https://example.com/rows.arrow",
        "s3://bucket/rows.arrow",
        "secret.parquet",
        "*.arrow",
        "",
        "a\0.arrow",
        "symbolic.arrow",
        "hard.arrow",
        "directory.arrow",
        "pipe.arrow",
    ],
)
def test_no_name_leads_elsewhere(files: JobFiles, tmp_path: Path, name: str) -> None:
    jobs = tmp_path / "jobs"
    (jobs / "symbolic.arrow").symlink_to(tmp_path / "secret.arrow")
    (jobs / "hard.arrow").hardlink_to(tmp_path / "secret.arrow")
    (jobs / "directory.arrow").mkdir()
    os.mkfifo(jobs / "pipe.arrow")
    fields = {ROWS_FILE: name.format(home=tmp_path).encode()}
    with pytest.raises(JobRefusedError, match=r"is not the name of a file in|is a link, or no file|cannot be opened"):
        files.fill(fields)
    files.remove(fields)
    assert (tmp_path / "secret.arrow").read_bytes() == b"secret"


def test_what_was_forgotten_is_swept(files: JobFiles, tmp_path: Path) -> None:
    old, new = files.write(table(row("a", 0))), files.write(table(row("b", 0)))
    os.utime(tmp_path / "jobs" / old, (0, 0))
    files.sweep()
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == [new]


@pytest.mark.services
def test_a_large_job_is_done_and_its_file_removed(tmp_path: Path, redis_url: str) -> None:
    settings = settings_for(tmp_path, redis_url)
    with redis.Redis.from_url(redis_url, protocol=2) as queues, client(settings, timeout_s=0.2) as hasty:
        with pytest.raises(DatabaseBusyError):
            hasty.append(LARGE)
        [(_, fields)] = queues.xrange(Queues().write)
        assert ROWS_FILE in fields
        assert b"rows" not in fields
    assert len(list(settings.jobs_dir.iterdir())) == 1
    assert settings.jobs_dir.stat().st_mode & 0o077 == 0
    with on_a_thread(settings), client(settings) as database:
        assert database.append(LARGE).skipped == (True,)
        assert database.query_arrow("SELECT count(*) AS n FROM log.activity_v1").to_pylist() == [{"n": 9_000}]
        eventually(lambda: not list(settings.jobs_dir.iterdir()))


@pytest.mark.services
def test_a_job_whose_rows_are_gone_may_be_sent_again(tmp_path: Path, redis_url: str) -> None:
    settings = settings_for(tmp_path, redis_url)
    with client(settings, timeout_s=0.2) as hasty, pytest.raises(DatabaseBusyError):
        hasty.append(LARGE)
    [left] = settings.jobs_dir.iterdir()
    left.write_bytes(left.read_bytes()[:1000])  # as a power cut may leave it
    with on_a_thread(settings) as serving, client(settings) as database:
        eventually(lambda: serving.counted("fs_write_jobs_completed_total", outcome="refused") == 1)
        assert database.append(LARGE).skipped == (False,)
