"""A disk that is really full: landing stops, says so, and goes on; P1, P2 and P8 hold."""

import subprocess
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

from featurestore.settings import Settings
from tests.ingest.kafka.conftest import Topic, assert_kept, daemon, numbers, project, rows_in
from tests.ingest.kafka.conftest import settings as settings
from tests.ingest.kafka.conftest import topic as topic

pytestmark = [pytest.mark.services, pytest.mark.system]


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount)], check=True)
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_full_disk_pauses_and_goes_on(topic: Topic, settings: Settings, small_disk: Path) -> None:
    topic.create(partitions=2)
    settings = replace(settings, data_dir=small_disk)
    with daemon(settings, project(topic.name)) as service:
        topic.send_numbers(1_000)
        service.until(lambda: rows_in(settings) == 1_000)
        with (small_disk / "ballast").open("wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(4096))
            except OSError:
                pass
        topic.send_numbers(1_000, 1_000)
        service.until(lambda: any("no space left on the disk" in error for error in service.errors))
        assert service.health.state == "not ready"
        assert all(one.paused for one, _ in service.service.assignment.reading())

        (small_disk / "ballast").unlink()
        service.until(lambda: rows_in(settings) == 2_000)
        service.until_ready()
        assert sorted(numbers(settings)) == list(range(2_000))
        assert_kept(settings)
