"""An emptied Redis is filled again from the log; what a crash leaves is not this sensor's."""

from datetime import timedelta
from typing import Any

import dagster as dg
import pytest

from featurestore.definitions.view import FeatureView
from featurestore.entity_id import Piece
from featurestore.errors import StoreUnavailableError
from featurestore.online.memory import MemoryOnlineStore
from featurestore.recovery.online import Refilled, refill
from featurestore_dagster import backlog
from featurestore_dagster.assets.online import REBUILD_TAG
from featurestore_dagster.steps import online as online_steps
from tests.featurestore_dagster.platform import LAST, PROJECT, Platform, spoil


@pytest.fixture
def lost(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A platform whose Redis lists none of more lines than a crash leaves."""
    monkeypatch.setattr(backlog, "REBUILD_ABOVE", 2)
    for page in "abc":
        platform.land(page, page.upper())
    platform.settle()
    platform.resources["online"] = MemoryOnlineStore()
    return platform


def values(platform: Platform, entity_id: str) -> tuple[object, object]:
    online = platform.resources["online"]
    assert isinstance(online, MemoryOnlineStore)
    [row] = online.read("user", [entity_id], [LAST["page"], LAST["clicks_1h"]], platform.now)
    return row["page"].value, row["clicks_1h"].value


def test_an_emptied_store_is_rebuilt(lost: Platform) -> None:
    assert lost.tick() == []  # no batch is read again
    request = lost.look_for_loss()
    assert isinstance(request, dg.RunRequest)
    assert request.tags[REBUILD_TAG] == "last_click"
    assert lost.rebuild(request)
    assert [values(lost, entity_id) for entity_id in ("0", "1")] == [("c", 3), ("C", 3)]
    assert isinstance(lost.look_for_loss(), dg.SkipReason)
    assert lost.tick() == []


def test_a_rebuild_that_was_cut_off_goes_on_where_it_was(lost: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[int] = []

    def cut_off(view: FeatureView, piece: Piece, *args: Any, **kwargs: Any) -> Refilled:
        if len(pieces) == 5:
            raise StoreUnavailableError("Redis", "127.0.0.1:1")
        pieces.append(piece.number)
        return refill(view, piece, *args, **kwargs)

    request = lost.look_for_loss()
    with monkeypatch.context() as patched:
        patched.setattr(online_steps, "refill", cut_off)
        assert not lost.rebuild(request)
    assert isinstance(lost.tick(), list)
    assert not lost.resources["online"].pushed(LAST).above  # nothing is listed before all is there
    request = lost.look_for_loss()
    assert request.tags["dagster/asset_partition_range_start"] == "05"
    assert lost.rebuild(request)
    assert [values(lost, entity_id) for entity_id in ("0", "1")] == [("c", 3), ("C", 3)]
    assert isinstance(lost.look_for_loss(), dg.SkipReason)


def test_a_line_whose_batch_is_no_longer_kept_is_filled_from_the_log(platform: Platform) -> None:
    platform.land("a")
    platform.settle()
    spoil(platform, "UPDATE applied SET batch_id = 'clicks/removed.parquet'")
    platform.resources["online"] = MemoryOnlineStore()
    platform.use(PROJECT)  # another process, which has not seen it
    assert isinstance(platform.look_for_loss(), dg.SkipReason)  # it may have landed after the listing
    platform.use(PROJECT)
    request = platform.look_for_loss(after=timedelta(minutes=5))
    assert platform.rebuild(request)
    assert values(platform, "0") == ("a", 1)


def test_after_the_log_was_restored_what_it_lacks_is_taken_away(platform: Platform) -> None:
    platform.land("a", "b")
    platform.settle()
    platform.land("late", "late", "late")
    platform.settle()
    assert values(platform, "0") == ("late", 2)
    spoil(platform, "DELETE FROM hot.last_click_v1 WHERE page = 'late'")
    assert isinstance(platform.look_for_loss(), dg.SkipReason)  # the same database, as far as one can see
    spoil(platform, "UPDATE store_info SET epoch = 'another'")
    platform.use(PROJECT)
    request = platform.look_for_loss()
    assert isinstance(request, dg.RunRequest)
    assert platform.rebuild(request)
    assert [values(platform, entity_id) for entity_id in ("0", "1", "2")] == [("a", 1), ("b", 1), (None, 0)]
    assert isinstance(platform.look_for_loss(), dg.SkipReason)


def test_an_erasure_is_no_loss_and_a_rebuild_after_one_is_the_last(platform: Platform) -> None:
    platform.land("a", "b")
    platform.settle()
    spoil(platform, "INSERT INTO erasures VALUES (now(), 'user', 1)")
    platform.use(PROJECT)
    assert isinstance(platform.look_for_loss(), dg.SkipReason)
    spoil(platform, "UPDATE store_info SET epoch = 'another'")
    platform.use(PROJECT)
    assert platform.rebuild(platform.look_for_loss())
    platform.use(PROJECT)
    assert isinstance(platform.look_for_loss(), dg.SkipReason)


def test_one_rebuild_at_a_time(lost: Platform) -> None:
    request = lost.look_for_loss()
    tags = {REBUILD_TAG: request.tags[REBUILD_TAG]}
    lost.instance.create_run_for_job(lost.job, tags=tags, status=dg.DagsterRunStatus.STARTED)
    assert lost.look_for_loss().skip_message == "a rebuild is running"


def test_a_few_missing_lines_are_left_to_the_batches(platform: Platform) -> None:
    platform.land("a")
    platform.settle()
    platform.resources["online"] = MemoryOnlineStore()
    assert isinstance(platform.look_for_loss(), dg.SkipReason)
    assert len(platform.tick()) == 1


def test_a_rebuild_needs_no_flush_and_takes_nothing_back(platform: Platform) -> None:
    platform.land("old")
    platform.settle()
    assert platform.rebuild()
    assert values(platform, "0") == ("old", 1)
