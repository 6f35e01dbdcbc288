"""A parked batch is seen from outside, and released."""

from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from featurestore.definitions.project import Project
from featurestore_cli.main import main
from featurestore_dagster.parking import release, released, sensor_cursor
from featurestore_dagster.sensors.cursor import Cursor
from tests.featurestore_dagster.exporter.test_daemon import keep_failed_tick
from tests.featurestore_dagster.platform import Platform
from tests.featurestore_dagster.sensors.test_landed import NUMBER

TREE = Path(__file__).parents[2]


def parked(platform: Platform) -> str:
    """A batch that has failed alone until it was left alone."""
    platform.use(Project((NUMBER,)))
    bad = platform.land("not a number")
    for _ in range(10):
        for request in platform.tick():
            platform.run(request)
        platform.now += timedelta(seconds=60)
    assert Cursor.from_json(platform.cursor, platform.now).parked == {bad.batch_id}
    return bad.batch_id


def test_a_released_batch_is_tried_again_and_parked_again(platform: Platform) -> None:
    batch_id = parked(platform)
    assert platform.tick() == []
    release(platform.instance, [batch_id], platform.now)
    runs = 0
    for _ in range(10):
        platform.now += timedelta(seconds=60)
        for request in platform.tick():
            runs += 1
            platform.run(request)
    assert runs == 3  # as if it were new; an old release does not hold for ever
    assert Cursor.from_json(platform.cursor, platform.now).parked == {batch_id}


def test_old_releases_are_dropped(platform: Platform) -> None:
    release(platform.instance, ["a"], platform.now - timedelta(days=2))
    release(platform.instance, ["b"], platform.now)
    assert released(platform.instance) == {"b": platform.now}


def test_the_command_releases(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEATURESTORE_DATA_DIR", str(tmp_path))
    assert main(["batches", "release", "--all"]) == 1
    assert "`featurestore up` makes it" in capsys.readouterr().err
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text((TREE / "dagster.yaml").read_text())
    batch_id = parked(platform)
    with dg.DagsterInstance.from_config(str(home)) as platform.instance:
        assert main(["batches", "release", "--all"]) == 0
        keep_failed_tick(platform, Cursor.from_json(platform.cursor, platform.now))
        assert sensor_cursor(platform.instance).parked == {batch_id}
        assert main(["batches", "release"]) == 2
        assert main(["batches", "release", "clicks/other"]) == 1
        assert "clicks/other is not parked" in capsys.readouterr().err
        assert main(["batches", "release", batch_id]) == 0
        assert set(released(platform.instance)) == {batch_id}
    assert "1 released" in capsys.readouterr().out
