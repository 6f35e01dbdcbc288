"""P2: nothing is acknowledged before it is durable and visible whole.

At each acknowledgement, what a power loss would leave is built from what has been synced so far, and read. Negative
controls: as if files, or directories, were not synced, acknowledged rows are missing there.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from featurestore.landing.zone import LandingZone
from featurestore.settings import Settings
from ingest.client import send_events, upload
from ingest.grpc.spool import Announced, SpoolDirectory
from tests.corpus.bad_files import HEADER, LINE, ndjson
from tests.ingest.grpc.conftest import serving
from tests.ingest.kafka.conftest import Topic, daemon, project, rows_in
from tests.ingest.kafka.conftest import settings as settings
from tests.ingest.kafka.conftest import topic as topic
from tests.ingest.power import TOO_EARLY, But, Durable

SYNCED: tuple[But, ...] = ("", "files", "directories")


@pytest.fixture
def plain(tmp_path: Path) -> Settings:
    """Settings of a service that needs no Kafka."""
    (tmp_path / "data").mkdir()
    defaults = Settings(data_dir=tmp_path / "data")
    return replace(
        defaults,
        grpc=replace(defaults.grpc, address="127.0.0.1:0"),
        ingest=replace(defaults.ingest, disk_reserve_bytes=0),
    )


def left(durable: Durable, settings: Settings, target: Path, source: str) -> tuple[int, int]:
    """Rows and dead letters that a power loss would leave, every one of them read."""
    zone = LandingZone(durable.restore(settings.data_dir, target) / "landing")
    batches = zone.batches(source)
    return sum(zone.read(batch).num_rows for batch in batches), len(list(zone.dead_letters(source)))


@pytest.mark.parametrize("but", SYNCED)
def test_an_upload_is_durable_when_the_reply_comes(
    plain: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, but: But
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(HEADER + LINE * 5_000 + b"bad\n")
    with serving(plain) as address:
        durable = Durable(monkeypatch, but)

        report = upload(path, "profiles", address=address)

        assert (report.rows, report.dead_rows) == (5_000, 1)
        if but:
            assert_lost(durable, plain, tmp_path)
        else:
            assert left(durable, plain, tmp_path / "left", "profiles") == (5_000, 1)


@pytest.mark.parametrize("but", SYNCED)
def test_a_batch_of_events_is_durable_when_the_reply_comes(
    plain: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, but: But
) -> None:
    with serving(plain) as address:
        durable = Durable(monkeypatch, but)

        send_events([ndjson()] * 7 + [b"bad"], "profiles", address=address)

        if but:
            assert_lost(durable, plain, tmp_path)
        else:
            assert left(durable, plain, tmp_path / "left", "profiles") == (7, 1)


def assert_lost(durable: Durable, settings: Settings, tmp_path: Path) -> None:
    """Rows are missing, or cannot be read."""
    try:
        rows, _ = left(durable, settings, tmp_path / "left", "profiles")
    except OSError:
        return
    assert rows == 0


def test_committed_bytes_are_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "uploads"
    root.mkdir()
    durable = Durable(monkeypatch)
    spool = SpoolDirectory(root).create("x", Announced("profiles", "x", "csv", 1 << 30, "0" * 64))
    content = os.urandom(1 << 20)
    with spool.appending() as appender:
        for _ in range(40):
            appender.append(content)
            committed = spool.committed_bytes
            found = SpoolDirectory(durable.restore(root, tmp_path / f"left-{appender.position}")).get("x")
            assert found is not None
            if committed:
                assert found.committed_bytes == committed
                assert found.data.read_bytes()[:committed] == (content * 40)[:committed]
    assert spool.committed_bytes == 40 << 20


@pytest.mark.services
@pytest.mark.parametrize("but", SYNCED)
def test_offsets_are_committed_after_the_rows_are_durable(
    topic: Topic, settings: Settings, tmp_path: Path, but: But
) -> None:
    topic.create()
    with daemon(settings, project(topic.name), but=but) as service:
        service.until_ready()
        for start in range(0, 500, 100):
            topic.send([(b"1", b"bad")])
            topic.send_numbers(100, start)
            if but:
                with pytest.raises(AssertionError, match=TOO_EARLY):
                    service.until(lambda: rows_in(settings) > 0 and service.witness.acknowledged > 0)
                return
            service.until(lambda start=start: rows_in(settings) > start)
        assert service.witness.acknowledged > 0, "nothing was ever committed: nothing was tried"
