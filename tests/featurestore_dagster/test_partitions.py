"""Hours of landing as partitions."""

from datetime import UTC, datetime, timedelta, timezone

from dagster._core.test_utils import freeze_time

from featurestore_dagster.partitions import LANDING_HOUR, has_partition, key_of

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_the_running_hour_is_there_from_its_first_moment() -> None:
    with freeze_time(NOON):
        assert has_partition(NOON)
        assert LANDING_HOUR.get_last_partition_key() == key_of(NOON) == "2026-11-22-12:00"
        assert not has_partition(NOON + timedelta(hours=1))
    with freeze_time(NOON + timedelta(minutes=59, seconds=59)):
        assert not has_partition(NOON + timedelta(hours=1))


def test_keys_are_of_utc_hours() -> None:
    assert key_of(NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))) == "2026-11-22-12:00"


def test_hours_before_the_first_partition_are_not_there() -> None:
    assert not has_partition(datetime(2025, 12, 31, 23, tzinfo=UTC))
    assert has_partition(datetime(2026, 1, 1, tzinfo=UTC))
