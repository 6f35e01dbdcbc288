"""Landed rows by SQL, from the disk and from Blob Storage."""

import threading
import uuid
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import featurestore as fs
from featurestore.database.connection import open_database
from featurestore.database.guard import Caps, Guard, reading
from featurestore.database.jobs import EraseJob
from featurestore.database.landed_files import PREFIX, LandedFiles
from featurestore.errors import QueryError
from featurestore.landing.batch import Batch
from featurestore.landing.disk import DiskStorage
from featurestore.landing.retention import tend
from featurestore.landing.zone import LandingZone
from featurestore.settings import AzureSettings, Settings
from featurestore_cli.database import raw_relations
from featurestore_dagster.testing import land
from tests.featurestore.database.examples import EVENTS, NOON, PROJECT, USER
from tests.featurestore.database.serving import client, on_a_thread, settings_for

pytestmark = pytest.mark.services

HOUR = timedelta(hours=1)
Read = Callable[[str], list[dict[str, Any]]]
EVERY_COLUMN = "SELECT sum(sequence) AS sequence, sum(user_id) AS users, sum(steps) AS steps, sum(amount) AS amount"


@pytest.fixture(params=["disk", "azure"])
def settings(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> Settings:
    """With the landing zone on the disk, and in Blob Storage."""
    made = settings_for(tmp_path, redis_url)
    if request.param == "disk":
        return made
    azure = request.getfixturevalue("azurite").settings
    return replace(made, azure=replace(azure, landing_container=f"landing-{uuid.uuid4().hex}"))


def fill(zone: LandingZone, batches: int, rows: int) -> list[Batch]:
    """A batch a minute; users are numbered from 0 in each."""
    return [
        land(
            {"landing": zone},
            EVENTS,
            [{"user_id": n, "at": NOON, "action": f"a{n % 7}", "amount": n / 4, "steps": n} for n in range(rows)],
            created_at=NOON + timedelta(minutes=number),
        )
        for number in range(batches)
    ]


def test_compacted_files_count_once_and_erased_rows_not_at_all(settings: Settings) -> None:
    """From when the database knows of an erasure, which is before files are replaced."""
    zone = LandingZone.of(settings)
    batches = fill(zone, 4, 3)
    land({"landing": zone}, EVENTS, [], created_at=NOON + HOUR)
    count = "SELECT count(*) AS n, count(DISTINCT file) AS files, list_sort(list(user_id)) AS users FROM raw.events"
    with on_a_thread(settings), client(settings) as database:
        everyone = [0] * 4 + [1] * 4 + [2] * 4
        assert database.query_arrow(count).to_pylist() == [{"n": 12, "files": 4, "users": everyone}]
        tend(zone, EVENTS, NOON + 2 * HOUR, is_applied=lambda _: True, is_in_lake=lambda _: False)
        assert database.query_arrow(count).to_pylist() == [{"n": 12, "files": 1, "users": everyone}]
        database.erase(
            EraseJob(
                job_id="erase",
                entity="user",
                key=("user_id",),
                entity_id="1",
                sources=("events",),
                erased_at=NOON + HOUR,
                rows={batch.batch_id: (batch.start + 1,) for batch in batches},
            )
        )
        left = [0] * 4 + [2] * 4
        assert database.query_arrow(count).to_pylist() == [{"n": 8, "files": 1, "users": left}]


def test_columns_may_have_any_name(tmp_path: Path) -> None:
    schema = {"user_id": int, "file": str, "filename": str, "chain": str}
    source = fs.UploadSource("files", timestamp="at", schema=schema)
    project = fs.Project(views=(fs.FeatureView("names", USER, source, [fs.Feature("filename", str)]),))
    settings = Settings(data_dir=tmp_path)
    row = {"user_id": 1, "at": NOON, "file": "a", "filename": "b", "chain": "c"}
    land({"landing": LandingZone.of(settings)}, source, [row])
    with guarded(settings, threads=1, project=project) as read:
        assert read("SELECT file, filename, chain FROM raw.files") == [{"file": "a", "filename": "b", "chain": "c"}]


@contextmanager
def guarded(settings: Settings, threads: int, project: fs.Project = PROJECT) -> Generator[Read]:
    """Reads as the service does, with as many threads to a query."""
    raw = raw_relations(settings, project, LandingZone.of(settings))
    settings.database_file.parent.mkdir(parents=True)
    with open_database(settings.database_file, threads=threads, allowed=raw.allowed) as connection:
        raw.create(connection)

        def read(sql: str) -> list[dict[str, Any]]:
            with reading(connection) as cursor:
                raw.prepare(cursor, sql)
                return Guard(Caps(1000, 1_000_000)).read(cursor, sql, None).to_pylist()

        yield read


def test_files_are_read_by_several_threads(settings: Settings) -> None:
    fill(LandingZone.of(settings), 4, 30_000)
    one = sum(range(30_000))
    with guarded(settings, threads=4) as read:
        for _ in range(2):  # what was read is remembered
            [found] = read(f"{EVERY_COLUMN}, count(DISTINCT action) AS actions FROM raw.events")
            assert found == {
                "sequence": sum(range(120_000)),
                "users": 4 * one,
                "steps": 4 * one,
                "amount": one,
                "actions": 7,
            }
        twice = "raw.events AS a JOIN raw.events AS b USING (sequence, user_id, steps, amount)"
        [found] = read(f"{EVERY_COLUMN} FROM {twice}")
        assert found["steps"] == 4 * one


def test_threads_do_not_disturb_each_other_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(100)))
    file = LandedFiles(DiskStorage(tmp_path)).open(f"{PREFIX}file")
    turn = threading.Barrier(2)

    def read(place: int) -> bytes:
        file.seek(place)
        turn.wait(20)  # both have sought
        return file.read(3) + file.read(2)

    with closing(file), ThreadPoolExecutor(2) as pool:
        assert list(pool.map(read, (10, 50))) == [bytes(range(10, 15)), bytes(range(50, 55))]


def test_landed_files_are_for_reading(settings: Settings) -> None:
    fill(LandingZone.of(settings), 1, 3)
    with guarded(settings, threads=1) as read:
        for sql in (
            "FROM read_parquet('landed://other')",
            "FROM read_parquet('landed://../database/features.duckdb')",
            "FROM read_text('landed://events')",
            "WITH made AS (COPY (SELECT 1) TO 'landed://made.parquet') SELECT * FROM made",
        ):
            with pytest.raises(QueryError) as refused:
                read(sql)
            assert "Traceback" not in str(refused.value)


def test_blob_storage_that_does_not_answer_is_said_and_taken_for_nothing_else(tmp_path: Path, redis_url: str) -> None:
    account = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=YQ==;BlobEndpoint=http://127.0.0.1:1/a"
    azure = AzureSettings(connection_string=account, landing_container="landing", timeout_s=1.0, tries=1)
    settings = replace(settings_for(tmp_path, redis_url), azure=azure)
    with on_a_thread(settings), client(settings) as database:
        assert database.query_arrow("SELECT count(*) AS n FROM log.activity_v1").num_rows == 1
        with pytest.raises(QueryError, match=r"raw.events cannot be read: .*127.0.0.1:1/a"):
            database.query_arrow("SELECT * FROM raw.events")
        with pytest.raises(QueryError, match=r"^Azure Blob Storage does not answer"):
            database.query_arrow("FROM read_parquet('landed://events/x.parquet')")
        assert database.query_arrow("SELECT count(*) AS n FROM log.activity_v1").num_rows == 1
