"""Every value has a story, and it is that of the row which decides it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from featurestore.apply import apply_batches
from featurestore.database.client import Database
from featurestore.definitions.entity import Entity
from featurestore.definitions.feature import Aggregation, Feature
from featurestore.definitions.project import Project
from featurestore.definitions.source import KafkaSource
from featurestore.definitions.view import FeatureView
from featurestore.landing.batch import Batch
from featurestore.landing.zone import LandingZone
from featurestore.offline.story import Story, story
from featurestore.offline.tables import schema_job
from featurestore.testing.memory import MemoryStore
from featurestore_dagster.testing import land

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
CLICKS = KafkaSource("clicks", timestamp="at", schema={"user_id": int, "page": str, "seconds": float | None})
VIEW = FeatureView(
    "reading",
    Entity("user", key="user_id"),
    CLICKS,
    [Feature("page", str, "upper(page)"), Aggregation("time", "sum", "seconds", where="page <> 'ad'", windows=("1h",))],
)


class World:
    """A landing zone and a database, with a view applied."""

    def __init__(self, root: Path) -> None:
        self.zone = LandingZone(root)
        self.database: Database = MemoryStore(Project((VIEW,))).database
        self.database.ensure(schema_job(Project((VIEW,))))

    def land(self, *rows: tuple[timedelta, str, float | None]) -> Batch:
        """Rows of user 1, so long before NOW."""
        records = [{"user_id": 1, "at": NOW - ago, "page": page, "seconds": s} for ago, page, s in rows]
        batch = land({"landing": self.zone}, CLICKS, records, created_at=NOW + timedelta(seconds=3))
        apply_batches(VIEW, [batch], self.zone, self.database, None)
        return batch

    def story(self, feature: str, entity_id: str = "1", at: datetime = NOW) -> Story | None:
        return story(self.database, self.zone, VIEW, VIEW[feature], entity_id, at)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def test_of_a_row_feature_the_newest_row(world: World) -> None:
    batch = world.land((minutes(30), "a", 1.0), (minutes(20), "b", None))
    world.land((minutes(25), "late", 1.0))
    told = world.story("page")
    assert told is not None
    assert (told.event_timestamp, told.sequence, told.rows) == (NOW - minutes(20), 1, 1)
    assert told.known_after == minutes(20) + timedelta(seconds=3)
    assert told.batch_id == batch.batch_id
    assert told.batch == batch
    assert told.expression == "upper(page)"


def test_as_of_an_earlier_time_an_earlier_row(world: World) -> None:
    world.land((minutes(30), "a", 1.0), (minutes(20), "b", None))
    told = world.story(
        "page",
        at=NOW
        - minutes(
            20,
        )
        - timedelta(microseconds=1),
    )
    assert told is not None
    assert told.event_timestamp == NOW - minutes(30)


def test_of_a_window_the_newest_row_that_counts(world: World) -> None:
    world.land(
        (minutes(90), "before it", 1.0), (minutes(30), "a", 1.0), (minutes(20), "b", 2.0),
        (minutes(10), "c", None), (minutes(5), "ad", 9.0),
    )  # fmt: skip
    told = world.story("time_1h")
    assert told is not None
    assert (told.rows, told.event_timestamp) == (2, NOW - minutes(20))
    assert told.expression == "sum(seconds) where page <> 'ad', over 1h"


def test_where_nothing_counts_there_is_no_story(world: World) -> None:
    world.land((minutes(90), "a", 1.0))
    assert world.story("page", entity_id="2") is None
    assert world.story("time_1h") is None


def test_what_landed_may_be_gone(world: World) -> None:
    batch = world.land((minutes(1), "a", 1.0))
    zone = LandingZone(Path(world.zone.storage.address).with_name("empty"))
    told = story(world.database, zone, VIEW, VIEW["page"], "1", NOW)
    assert told is not None
    assert (told.batch_id, told.batch) == (batch.batch_id, None)
